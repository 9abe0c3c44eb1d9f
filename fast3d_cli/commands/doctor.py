"""`fast3d doctor`: would `fast3d eval` run, and would its numbers be right?"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from fast3d_cli.console import err, note, note_once, out, print_json
from fast3d_cli.options import ConfigOption, JsonOption, SetOption, note_refused
from fast3d_core.errors import UsageError
from fast3d_core.text import printable, printable_lines

if TYPE_CHECKING:
    from fast3d_core.doctor import Finding, Options

_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def doctor(
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-m", help="What eval shall run. Repeatable. Default: all.", show_default=False),
    ] = None,
    gap: Annotated[
        str, typer.Option(help="Where eval shall take maps from: files, or live, predicted by gap.checkpoint.")
    ] = "files",
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read all bytes of the large files, too: checksums, and numbers that are none."),
    ] = False,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Check the config and every file it names: would eval run, and would its numbers be right?

    Of the weights only headers are read, of the features and maps the numbers. Exit code 1 if there is an error, which
    would stop eval or falsify its numbers; 0 otherwise.
    """
    if gap not in ("files", "live"):
        raise UsageError(f"--gap is files or live, not {gap[:80]!r}")
    from fast3d_core.defaults import load_config
    from fast3d_core.doctor import Options
    from fast3d_core.pruning import METHODS

    note_refused()
    for problem in METHODS.problems:
        note_once(problem)
    findings = _examined(Options(lambda: load_config(config, set_ or (), note), method or (), gap == "live", deep))
    counts = Counter(finding.status for finding in findings)
    if json:
        print_json({"ok": not counts["error"], "findings": [asdict(finding) for finding in findings]})
    else:
        out.print(_table(findings))
    shown = [f"{counts[kind]} {kind}{'s' * (counts[kind] > 1)}" for kind in ("error", "warning") if counts[kind]]
    note(", ".join(shown) or "all is well")
    if counts["error"]:
        raise typer.Exit(1)


def _examined(options: "Options") -> "list[Finding]":
    """All findings; on a terminal the last line says what is being read, elsewhere each of them is a line."""
    from dataclasses import replace

    from fast3d_core.doctor import examine

    if not err.is_terminal:
        return list(examine(replace(options, log=note)))
    with err.status("starting") as status:
        return list(examine(replace(options, log=lambda reads: status.update(Text(printable(reads))))))


def _table(findings: "Sequence[Finding]") -> Table:
    found = Column("found, and what to do", overflow="fold")
    table = Table(Column("about", no_wrap=True), Column("", no_wrap=True), found, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for finding in findings:
        lines = Text(printable_lines(finding.what + (f"\n-> {finding.do}" if finding.do else "")))
        table.add_row(Text(printable(finding.area)), Text(finding.status, _STYLES[finding.status]), lines)
    return table
