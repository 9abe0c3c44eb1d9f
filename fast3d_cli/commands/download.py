"""`fast3d download`: files that other commands read."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from fast3d_cli.console import err, error, note, out, print_json, print_text
from fast3d_cli.options import JsonOption
from fast3d_core.errors import UsageError

if TYPE_CHECKING:
    from fast3d_core.download import Item, Planned

_HELP = """demo (the embedded demo, in the released form), vicuna, roberta, annotations, chat-scene, attention-maps,
gap, predicted-maps, or all: everything but the demo. Without WHAT: shows what there is."""


def download(
    what: Annotated[list[str] | None, typer.Argument(help=_HELP, metavar="[WHAT...]", show_default=False)] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write to, its fast3d.yaml included. Default: the current folder; for the demo, where"
            " commands without a config look for it.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show source, size, licence and place, and what is there; fetch nothing.")
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(help="Commit, tag or branch of the one Hugging Face repository to download.", show_default=False),
    ] = None,
    accept_licences: Annotated[
        bool, typer.Option("--accept-licences", help="You have read the licences and accept them; remembered.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Get the files that other commands read, and a fast3d.yaml that names them. An interrupted download goes on."""
    names = what or ["all"]
    if "demo" in names:
        _check_demo_alone(names, dry_run, revision)
        _demo(to, json)
        return
    from fast3d_core.download import chosen, plan_downloads

    items, folder = chosen(names), (to or Path()).absolute()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--to {to} is a file; name a folder")
    if dry_run or not what:
        _print_plan(plan_downloads(items, folder, revision, note), json)
        return
    _need_licences(items, accept_licences)
    _fetch(items, folder, revision, json)


def _check_demo_alone(names: Sequence[str], dry_run: bool, revision: str | None) -> None:
    if len(names) > 1:
        raise UsageError("the demo is a folder of its own; download it in a command of its own")
    if dry_run or revision:
        raise UsageError("the demo is made here, not fetched; --dry-run and --revision do not apply to it")


def _demo(to: Path | None, json: bool) -> None:
    from fast3d_core.demo import demo_folder, ensure_demo, is_placed, place_demo

    folder = to.absolute() if to else demo_folder()
    there = bool(to) and is_placed(folder)
    if to and os.path.lexists(folder) and not there:
        raise UsageError(f"--to {to} is there already; name a new folder")
    if there:
        note(f"the demo is in {folder} already")
    elif to:
        note(f"writing the demo to {folder}; it takes some 20 seconds")
        folder.parent.mkdir(parents=True, exist_ok=True)
        place_demo(folder)
    else:
        ensure_demo(folder, note)
    if json:
        print_json({"demo": str(folder)})
    else:
        print_text(folder)


def _need_licences(items: "Sequence[Item]", accepted: bool) -> None:
    """Shows the licences that were not accepted before, and asks; `UsageError` where nobody can answer, or says no."""
    from fast3d_core.download import accept, not_accepted

    licences = not_accepted(items)
    if not licences:
        return
    note("What you download comes under these licences:")
    for licence in licences:
        note(f"  {licence} ({licence.link})")
    if not accepted:
        asked = sys.stdin.isatty() and typer.confirm("Do you accept them?", err=True)
        if not asked:
            raise UsageError("the licences above are not accepted; read them, then say --accept-licences")
    accept(licences)


def _fetch(items: "Sequence[Item]", folder: Path, revision: str | None, json: bool) -> None:
    from fast3d_core.download import download

    outcomes = []
    for outcome in download(items, folder, revision, note, bars=err.is_terminal):
        outcomes.append(outcome)
        if outcome.problem:
            error(outcome.problem)
        elif not json:
            print_text(outcome.path)
        note(f"{outcome.item.name}: {outcome.state}")
    if json:
        print_json({o.item.name: {"state": o.state, "path": str(o.path), "problem": o.problem} for o in outcomes})
    if any(outcome.problem for outcome in outcomes):
        raise typer.Exit(1)


def _print_plan(planned: "Sequence[Planned]", json: bool) -> None:
    if json:
        print_json({one.item.name: _plain(one) for one in planned})
        return
    from fast3d_core.files.disk import in_units

    # The name stays whole however narrow the terminal is.
    rest = (Column(name, overflow="fold") for name in ("source", "size", "licence", "where", "there"))
    table = Table(Column("what", no_wrap=True), *rest, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    root = planned[0].to
    for one in planned:
        item = one.item
        table.add_row(
            item.name,
            "\nor ".join(dict.fromkeys(source.title for source in item.sources)),
            item.size if one.size is None else in_units(one.size),
            "\n".join(map(str, item.licences)),
            item.value,
            one.there,
        )
    out.print(table)
    out.print(f"where: under {root}", highlight=False)
    for one in planned:
        if one.problem:
            note(f"{one.item.name}: {one.problem}")


def _plain(one: "Planned") -> dict[str, Any]:
    return {
        "what": one.item.what,
        "sources": [{"place": source.title, "link": source.link} for source in one.item.sources],
        "bytes": one.size,
        "size": one.item.size,
        "licences": [{"of": lic.of, "terms": lic.terms, "link": lic.link} for lic in one.item.licences],
        "to": str(one.folder),
        "there": one.there,
        "problem": one.problem,
    }
