"""A report, or one question, as an HTML file that needs no network: data (`Page`), and files in `assets/` that show it.

`assets/page.html` is the page, `page.css` its looks, the scripts in `SCRIPTS` are what it does; `vendor/` holds the
libraries. Whatever comes from files reaches the page as JSON only, and the scripts put it there as text.
"""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast3d_core.benchmarks import usable_benchmarks
from fast3d_core.config import Config
from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.journal import VersionError
from fast3d_core.files.files import atomic_write
from fast3d_core.pruning import METHODS, Pruner
from fast3d_core.report import render
from fast3d_core.report.answers import Answers, read_answers
from fast3d_core.report.attention import Agreement, KeptObjects, agreements, kept_objects
from fast3d_core.report.build import Report
from fast3d_core.report.methods import MethodView, method_views
from fast3d_core.report.plot import writing
from fast3d_core.report.remarks import Remarks
from fast3d_core.report.runs import Run
from fast3d_core.report.scenes import Browser, build_browser
from fast3d_core.text import printable

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("dom.js", "pruning.js", "charts.js", "room.js", "browser.js", "main.js")
SCENES = 20  # with which a page of the demo, of all its methods and budgets, stays well under 5 MB
LARGE = 5_000_000  # bytes


@dataclass(frozen=True)
class Table:
    """A table as `fast3d report` prints it: titles, and cells as a few short lines."""

    caption: str
    columns: list[render.Column]


@dataclass(frozen=True)
class Page:
    """All data of the page.

    Attributes:
        title: of the window and the page.
        report: null for one question of one's own (`asked.py`): then only scenes and tables are shown.
        tables: the comparison, and the differences where there are any; of a question, what each answer took.
        methods: the registry's in its order, and others that runs are of.
        kept: of the runs whose method is adaptive; agreements: of the datasets that have both kinds of maps.
        browser: null where the questions or boxes are not there.
        judged_by: dataset -> name of the metric that an answer alone is judged by; empty for a question of one's own.
        notes: of the report, and on what the page lacks.
    """

    title: str
    report: Report | None
    tables: list[Table]
    methods: list[MethodView]
    kept: list[KeptObjects]
    agreements: list[Agreement]
    browser: Browser | None
    judged_by: dict[str, str]
    notes: list[str]


def build_page(config: Config, runs: Sequence[Run], report: Report, scenes: int = SCENES) -> Page:
    """The page of a report over `runs`, with at most `scenes` scenes to look at.

    What cannot be shown is left out, with a note. Raises `DataError` for a damaged journal.
    """
    order = [row.name for row in report.rows]
    runs = sorted(runs, key=lambda run: order.index(run.name))
    remarks = Remarks()
    answers = {run.name: _answers(run, remarks) for run in runs}
    browser = None
    try:
        browser = build_browser(config, runs, answers, scenes, remarks)
    except DataError as error:
        remarks.add(f"there is no scene browser: {error}")
    compared = agreements(config, list(report.columns), remarks)
    slots = config.data.max_objects
    return Page(
        title="fast3d report",
        report=report,
        tables=_tables(report),
        methods=method_views(row.method for row in report.rows),
        kept=[
            one
            for run in runs
            if (method := _method(run)) and method.adaptive
            for one in kept_objects(run.name, answers[run.name], slots)
        ],
        agreements=compared,
        browser=browser,
        judged_by={one.name: one.judge.label for one in usable_benchmarks()},
        notes=[*report.notes, *remarks.lines()],
    )


def _answers(run: Run, remarks: Remarks) -> Answers:
    try:
        return read_answers(run)
    except VersionError:
        remarks.add(f"{run.name} is a run of another version of fast3d, whose answers this one does not read")
        return {}


def _method(run: Run) -> type[Pruner] | None:
    """Of a run; None where it is not there any more."""
    name = run.result.method
    return METHODS[name] if name is not None and name in METHODS else None


def to_html(page: Page) -> str:
    """The page as one HTML document."""
    vendor = ASSETS / "vendor"
    parts = {
        "style": _asset("page.css"),
        "licences": (vendor / "LICENCES.txt").read_text(encoding="utf-8"),
        "libraries": (vendor / "libraries.min.js").read_text(encoding="utf-8"),
        "data": _json(dataclasses.asdict(page)),
        "scripts": "\n".join(f"<script>\n{_asset(name)}</script>" for name in SCRIPTS),
    }
    # In one pass, so that nothing in the data is taken for a place to fill.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _asset("page.html"))


def check_html(path: Path) -> None:
    """Raises `UsageError` for what cannot be a file, or is a device that a page would take the place of."""
    if not path.name or (path.exists() and not path.is_file()):
        raise UsageError(f"--html {str(path)!r} names no file; name one, such as page.html")


def write_html(path: Path, page: Page) -> int:
    """Writes the page, whole or not at all, and returns its size in bytes. Raises `DataError` where it cannot."""
    text = to_html(page)
    with writing(path, "--html"), atomic_write(path) as file:
        file.write(text)
    return len(text.encode())


def _tables(report: Report) -> list[Table]:
    columns = [render.name_column(report.rows), *render.score_columns(report), *render.cost_columns(report)]
    tables = [Table(render.legend(report), columns)]
    if rows := render.difference_rows(report):
        tables.append(
            Table(render.difference_title(report), [render.name_column(rows), *render.difference_columns(report)])
        )
    return tables


def _json(value: Any) -> str:
    """JSON that no HTML parser ends early, of texts that move no cursor and turn no line around."""
    text = json.dumps(_printable(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _printable(value: Any) -> Any:
    """The value with every control character in its texts shown as U+FFFD; whitespace becomes spaces."""
    if isinstance(value, str):
        return printable(value, lambda c: " " if c.isspace() else "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, dict):
        return {_printable(key): _printable(one) for key, one in value.items()}
    return [_printable(one) for one in value] if isinstance(value, (list, tuple)) else value


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
