"""A report as Markdown, CSV and JSON, and the cells that Markdown and the terminal's tables share."""

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fast3d_core.files.typed import parse_typed
from fast3d_core.report.build import Difference, Estimate, Report, ReportRow, ScoreEstimate
from fast3d_core.text import csv_cell, printable

UNDEFINED = "-"


@dataclass(frozen=True)
class Column:
    """A column of a table for people: its title, and each cell as a few short lines."""

    title: str
    cells: Sequence[tuple[str, ...]]


def name_column(rows: Sequence[ReportRow]) -> Column:
    """Who made the row: the run's name, and what it is where the name does not say."""
    cells = []
    for row in rows:
        what = "published" if row.published else row.method or "scored"
        cells.append((printable(row.name if not row.published and what in row.name else f"{row.name} ({what})"),))
    return Column("Run", cells)


def score_columns(report: Report) -> list[Column]:
    """Headline scores and the score ratio, their intervals under them."""
    scores = [
        _sampled_column(label, [row.scores.get(dataset) for row in report.rows])
        for dataset, label in report.columns.items()
    ]
    return [*scores, Column("Score ratio", [tuple(_estimate_lines(row.ratio)) for row in report.rows])]


def cost_columns(report: Report) -> list[Column]:
    """Measured pruning ratio, FLOPs per sample and speed."""
    percents = [() if row.flops_percent is None else (f"{row.flops_percent:.1f}%",) for row in report.rows]
    flops = [(human(row.flops), *percent) for row, percent in zip(report.rows, percents, strict=True)]
    return [
        Column(
            "Pruned",
            [(UNDEFINED if row.pruning_ratio is None else f"{row.pruning_ratio:.2f}%",) for row in report.rows],
        ),
        Column("FLOPs per sample", flops),
        Column("Samples/s", [(human(row.samples_per_second),) for row in report.rows]),
    ]


def difference_rows(report: Report) -> list[ReportRow]:
    """The rows that have a difference to another run; none without a run to compare with."""
    return [row for row in report.rows if report.against and not row.published and row.name != report.against]


def difference_columns(report: Report) -> list[Column]:
    """Paired differences in percentage points, their intervals under them, and which of them are undecided."""
    rows = difference_rows(report)
    return [
        _sampled_column(label, [row.differences.get(dataset) for row in rows])
        for dataset, label in report.columns.items()
    ]


def legend(report: Report) -> str:
    """What the numbers of the scores and costs are."""
    text = f"Scores in percent, with their {report.confidence}% bootstrap intervals."
    if report.vanilla:
        text += f" Score ratio and FLOPs are relative to {report.vanilla}."
    return text + (f" Rows marked published: {report.published}; n is not theirs." if report.published else "")


def difference_title(report: Report) -> str:
    """What the numbers of the differences are."""
    return (
        f"Difference to {report.against} in percentage points, paired by sample, with its {report.confidence}% "
        "bootstrap interval; undecided: the interval holds 0."
    )


def to_markdown(report: Report) -> str:
    """GitHub tables of scores and costs and of the differences, with the notes under them."""
    columns = [name_column(report.rows), *score_columns(report), *cost_columns(report)]
    parts = [_markdown_table(columns), _escape(legend(report))]
    if rows := difference_rows(report):
        parts += [_escape(difference_title(report)), _markdown_table([name_column(rows), *difference_columns(report)])]
    parts += ["\n".join(f"- {_escape(note)}" for note in report.notes)] if report.notes else []
    return "\n\n".join(parts) + "\n"


def to_json(report: Report) -> str:
    """The report as JSON; the keys are those of `Report`, `ReportRow`, `ScoreEstimate`, `Estimate` and `Difference`."""
    return json.dumps(dataclasses.asdict(report), indent=1, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """The report that `to_json` wrote."""
    return parse_typed(Report, text)


def to_csv(report: Report) -> str:
    """One header row and a row per run; numbers in full precision, empty where undefined.

    The columns are the keys of `ReportRow`; those of datasets and of intervals are joined by "_", such as `scanqa_low`,
    `scanqa_n` and `scanqa_difference_verdict`. Percentages as in JSON. A name that a spreadsheet would run as a formula
    gets an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(_flat(report.rows[0], report)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(row, report) for row in report.rows)
    return text.getvalue()


def _flat(row: ReportRow, report: Report) -> dict[str, object]:
    name, method = csv_cell(row.name), row.method and csv_cell(row.method)
    flat: dict[str, object] = {"name": name, "method": method, "published": str(row.published).lower()}
    for dataset in report.columns:
        score = row.scores.get(dataset, ScoreEstimate())
        flat |= _flat_estimate(dataset, score) | {f"{dataset}_n": score.n}
    flat |= _flat_estimate("ratio", row.ratio)
    for key in ("ratio_datasets", "pruning_ratio", "flops", "flops_percent", "samples_per_second"):
        flat[key] = getattr(row, key)
    for dataset in report.columns:
        key, difference = f"{dataset}_difference", row.differences.get(dataset)
        flat |= _flat_estimate(key, difference or Estimate())
        flat |= {f"{key}_n": difference and difference.n, f"{key}_verdict": difference and difference.verdict}
    return flat


def _flat_estimate(name: str, estimate: Estimate) -> dict[str, object]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _markdown_table(columns: Sequence[Column]) -> str:
    lines = [
        [column.title for column in columns],
        ["---"] + ["---:"] * (len(columns) - 1),
        *(["<br>".join(map(_escape, cell)) for cell in row] for row in zip(*(c.cells for c in columns), strict=True)),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escape(text: str) -> str:
    """A name may hold what Markdown or HTML would read as its own."""
    return re.sub(r"([\\|<>`*~&\[\]])", r"\\\1", printable(" ".join(text.split())))


def _sampled_column(label: str, estimates: Sequence[ScoreEstimate | Difference | None]) -> Column:
    """Scores or differences; the number of samples is in the title, or in the cells where they differ in it."""
    numbers = {estimate.n for estimate in estimates if estimate and estimate.n is not None}
    title = f"{label} n={numbers.pop()}" if len(numbers) == 1 else label
    cells = []
    for estimate in estimates:
        lines = [*_estimate_lines(estimate or Estimate(), signed=isinstance(estimate, Difference))]
        if numbers and estimate and estimate.n is not None:
            lines.append(f"n={estimate.n}")
        if isinstance(estimate, Difference) and estimate.verdict == "undecided":
            lines.append("undecided")
        cells.append(tuple(lines))
    return Column(title, cells)


def _estimate_lines(estimate: Estimate, signed: bool = False) -> Iterator[str]:
    if estimate.value is None:
        yield UNDEFINED
        return
    value = round(estimate.value, 2) + 0.0  # + 0.0 makes -0.0 a plain 0
    yield f"{value:+.2f}" if signed else f"{value:.2f}"
    if estimate.low is not None and estimate.high is not None:
        yield f"{_end(estimate.low)}{'..' if signed else '-'}{_end(estimate.high)}"


def _end(value: float) -> str:
    """An end of an interval, as short as can be: six of them must fit beside a name in 80 columns."""
    if value in (0, 100, -100):
        return str(int(value))
    digits = 2 if abs(value) < 9.995 else 1
    return f"{round(value, digits) + 0.0:.{digits}f}"


def human(number: float | None) -> str:
    """Three significant digits and a unit prefix: 8.53 T."""
    if number is None:
        return UNDEFINED
    prefixes = ["", "k", "M", "G", "T", "P", "E"]
    while number >= 999.5 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f"{number:#.3g}".rstrip(".") + f" {prefixes[0]}".rstrip()
