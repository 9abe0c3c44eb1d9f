"""`fast3d report`: the comparison of runs."""

import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fast3d_cli.console import note, out, print_data
from fast3d_cli.options import ConfigOption, SetOption, any_seed, load
from fast3d_cli.pages import note_page
from fast3d_core.errors import DataError, UsageError
from fast3d_core.text import printable

if TYPE_CHECKING:
    from fast3d_core.config import Config
    from fast3d_core.report import Report, Run
    from fast3d_core.report.render import Column


class Format(str, Enum):
    """How the comparison is written."""

    table = "table"
    markdown = "markdown"
    csv = "csv"
    json = "json"


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Runs, by name or by path. Default: all complete runs."),
    ] = None,
    vanilla: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="What ratios are relative to. Default: the run whose method is vanilla."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="What differences are to. Default: the vanilla run.")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Add the paper's rows, marked as such.")] = False,
    format_: Annotated[
        Format | None, typer.Option("--format", help="Default: table.", case_sensitive=False, show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples behind an interval.")] = 2000,
    seed: Annotated[int, typer.Option(callback=any_seed, help="Seed of the bootstrap.")] = 0,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a page with charts and the scenes in 3D, to open from disk.",
            rich_help_panel="Pictures",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png|svg",
            help="Also draw the score ratio against the pruning ratio.",
            rich_help_panel="Pictures",
        ),
    ] = None,
    scenes: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Scenes in the page, at most. Default: 20.", rich_help_panel="Pictures"
        ),
    ] = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Compare runs: headline scores and the score ratio to the vanilla run, what they cost, and paired differences.

    Intervals are 95% percentile-bootstrap intervals. A difference whose interval holds 0 is called undecided.
    """
    if json and format_ not in (None, Format.json):
        raise UsageError(f"--json and --format {format_.value} exclude each other; give one of them")
    if html is not None:
        from fast3d_core.report.html import check_html

        check_html(html)
    if scenes is not None and html is None:
        raise UsageError("--scenes means nothing without --html FILE")
    if plot is not None:
        from fast3d_core.report.plot import check_plot

        check_plot(plot)
    settings = load(config, set_)
    from fast3d_core import report as core

    if runs:
        folders = [core.find_run(settings.runs, run) for run in runs]
    else:
        folders, incomplete = core.list_runs(settings.runs)
        for path in incomplete:
            note(f"{path} is not complete and left out: {core.HOW_TO_COMPLETE}")
        if not folders:
            raise DataError(f"there is no complete run in {settings.runs}; run `fast3d eval` first")
    # A run that is only compared with is a row, too.
    named = [core.find_run(settings.runs, run) if run is not None else None for run in (vanilla, against)]
    loaded = core.load_runs([*folders, *(path for path in named if path)])
    by_path = {run.path.resolve(): run.name for run in loaded}
    names = [by_path[path.resolve()] if path else None for path in named]
    comparison = core.build_report(
        loaded, vanilla=names[0], against=names[1], published=published, resamples=resamples, seed=seed
    )
    for remark in comparison.notes:
        note(remark)
    writers = {Format.markdown: core.to_markdown, Format.csv: core.to_csv, Format.json: core.to_json}
    chosen = Format.json if json else format_
    if chosen in writers:
        print_data(writers[chosen](comparison))
    else:
        print_report(comparison)
    if plot is not None:
        from fast3d_core.report.plot import write_plot

        write_plot(plot, comparison)
        note(f"written: {plot}")
    if html is not None:
        _write_html(html, settings, loaded, comparison, scenes)


def _write_html(path: Path, config: "Config", runs: "Sequence[Run]", report: "Report", scenes: int | None) -> None:
    """The page, its size, and what it lacks."""
    from fast3d_core.report import html

    page = html.build_page(config, runs, report, scenes or html.SCENES)
    for remark in page.notes[len(report.notes) :]:
        note(remark)
    size = html.write_html(path, page)
    note_page(path, size, "; --scenes N makes it smaller" if size > html.LARGE else "")


def print_report(report: "Report") -> None:
    """Scores and costs, in one table where it fits, and the differences."""
    from fast3d_core.report import render

    name, scores, costs = render.name_column(report.rows), render.score_columns(report), render.cost_columns(report)
    longest = max(len(line) for cell in name.cells for line in cell)
    one = Measurement.get(out, out.options, _table([*scores, *costs])).maximum + longest + _GAP <= out.width
    for columns in [[*scores, *costs]] if one else [scores, costs]:
        _print_table(name, columns)
        out.print()
    _print_text(render.legend(report))
    if rows := render.difference_rows(report):
        out.print()
        _print_text(render.difference_title(report))
        _print_table(render.name_column(rows), render.difference_columns(report))


_GAP = 2  # columns between two columns
_SHORTEST_NAME = 8


def _print_table(name: "Column", columns: "Sequence[Column]") -> None:
    """The numbers as wide as they are; names take the width that is left and break where they have a hyphen."""
    numbers = Measurement.get(out, out.options.update(max_width=1000), _table(columns)).maximum
    width = max(_SHORTEST_NAME, out.width - numbers - _GAP)
    broken = [(*_break(cell[0], width), *cell[1:]) for cell in name.cells]
    table = _table([type(name)(name.title, broken), *columns])
    table.columns[0].justify = "left"
    # Never narrower than the numbers: a terminal that is may break lines, but no number is cut.
    table.width = None if out.width >= width + _GAP + numbers else width + _GAP + numbers
    out.print(table, soft_wrap=False, crop=False)


def _table(columns: "Sequence[Column]") -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column in columns:
        # A long word such as Multi3DRefer is two words to a reader, too.
        title = "\n".join(re.sub(r"\b(\w{6,})([A-Z][a-z]+)", r"\1 \2", column.title).split())
        table.add_column(Text(title), justify="right", vertical="top", no_wrap=True, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text("\n").join([Text(cell[0]), *(Text(line, "dim") for line in cell[1:])]) for cell in cells))
    return table


def _break(name: str, width: int) -> list[str]:
    """The name in lines of at most `width` characters, broken behind hyphens and spaces where it has them."""
    lines = [""]
    for piece in re.findall(r"[^- ]*[- ]?", name):
        if len(lines[-1] + piece.rstrip()) > width and lines[-1]:
            lines.append("")
        lines[-1] += piece
    return [line[start : start + width] for line in lines for start in range(0, max(1, len(line.rstrip())), width)]


def _print_text(text: str) -> None:
    out.print(Text(printable(text)), soft_wrap=False)
