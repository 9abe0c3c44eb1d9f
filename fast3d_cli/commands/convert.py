"""`fast3d convert`: features and checkpoints as safetensors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from fast3d_cli.console import err, note, out, print_json, print_text
from fast3d_cli.options import ConfigOption, JsonOption, SetOption, load

if TYPE_CHECKING:
    from fast3d_core.convert import Conversion

_HELP = "features, chat-scene (model.checkpoint) or gap (gap.checkpoint). Default: what is there in released form."


def convert(
    what: Annotated[list[str] | None, typer.Argument(help=_HELP, metavar="[WHAT...]", show_default=False)] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder to write to. Default: beside the files converted.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be converted, and write nothing.")
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Write features and checkpoints as safetensors, which load in no time and cannot hold code; answers stay the same.

    Packed features lie beside the released ones and are read in their place. A converted checkpoint is for the config
    to name. The files converted are left as they are; what is done already is not done again.
    """
    settings = load(config, set_)
    from fast3d_core.convert import convert as carry_out
    from fast3d_core.convert import plan_conversions

    planned = plan_conversions(settings, list(dict.fromkeys(what or ())), to)
    seconds: Mapping[Path, float] = {}
    if not dry_run:
        try:
            with _View() as view:
                seconds = carry_out(planned, view)
        except KeyboardInterrupt:
            note("interrupted; files that are done are kept, the same command does the rest")
            raise typer.Exit(130) from None
    if json:
        print_json([_plain(one, seconds, dry_run) for one in planned])
    elif dry_run:
        out.print(_table(planned))
    else:
        for one in planned:
            print_text(one.target)
    for one in planned:
        if one.key and not dry_run:
            note(f"to use it, set {one.key} to {one.target}")


def _plain(one: "Conversion", seconds: Mapping[Path, float], dry_run: bool) -> dict[str, str | float | None]:
    return {
        "what": one.what,
        "source": str(one.source),
        "target": str(one.target),
        "state": "there" if one.done else "to do" if dry_run else "converted",
        "bytes": one.size if dry_run else one.target.stat().st_size,
        "seconds": seconds.get(one.target),
        "key": one.key,
    }


def _table(planned: "Sequence[Conversion]") -> Table:
    from fast3d_core.files.disk import in_units

    table = Table("what", Column("file", no_wrap=True), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("to", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for one in planned:
        state = "there" if one.done else "to do"
        table.add_row(one.what, one.source.name, str(one.target), in_units(one.size), state)
    return table


class _View:
    """A bar for each file; where stderr is no terminal, a line."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), console=err,
        )  # fmt: skip
        self._tasks: dict[Path, TaskID] = {}
        self._task: TaskID | None = None

    def __enter__(self) -> "_View":
        if err.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if err.is_terminal:
            self._bars.stop()

    def start(self, source: Path, stage: str, total: int) -> None:
        if not err.is_terminal:
            note(f"{stage} {source.name}" + (f": {total} scenes" if total else ""))
            return
        if source not in self._tasks:
            self._tasks[source] = self._bars.add_task(source.name, total=None)
        self._task = self._tasks[source]
        self._bars.update(self._task, description=f"{stage} {source.name}")
        if total:
            self._bars.update(self._task, total=total, completed=0)

    def done(self, source: Path) -> None:
        if err.is_terminal:
            self._bars.update(self._tasks[source], description=f"converted {source.name}", total=1, completed=1)

    def advance(self) -> None:
        if err.is_terminal and self._task is not None:
            self._bars.advance(self._task)
