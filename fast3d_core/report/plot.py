"""The figure for a paper: score ratio against pruning ratio, a line and a marker for each method.

It needs matplotlib, which is an extra: `pip install "fast3d[plot]"`.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import atomic_path
from fast3d_core.pruning import BASELINE, METHODS
from fast3d_core.report.build import Report, ReportRow
from fast3d_core.report.methods import in_order

SUFFIXES = (".png", ".svg")
_DPI = 300


@dataclass(frozen=True)
class _Point:
    """A run: x is its pruning ratio, y its score ratio, its interval from `below` under it to `above` over it."""

    name: str
    x: float
    y: float
    below: float
    above: float


def check_plot(path: Path) -> None:
    """Raises `UsageError` for a file that is neither .png nor .svg, or where matplotlib is not installed."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot writes .png or .svg, not {path.suffix or path.name!r}; name the file so")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError('--plot needs matplotlib: pip install "fast3d[plot]"')


def write_plot(path: Path, report: Report) -> None:
    """Draws the figure: published rows hollow, on a broken line.

    Raises `DataError` when no row has both a score ratio and a pruning ratio, or the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    groups = _groups(report)
    if not groups:
        raise DataError(
            f"there is nothing to plot: no run has both a pruning ratio and a score ratio to a {BASELINE} run; "
            f"add a {BASELINE} run, or name one with --vanilla RUN"
        )
    # Text stays text in an SVG, and nothing in the file depends on the day or is drawn at random.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fast3d", "font.size": 9}):
        figure = Figure(figsize=(4.8, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for (method, published), points in groups.items():
            style = METHODS.style(method)
            axes.errorbar(
                [point.x for point in points],
                [point.y for point in points],
                yerr=[[point.below for point in points], [point.above for point in points]],
                label=f"{style.title} (published)" if published else style.title,
                color=style.colour,
                marker=style.marker,
                markerfacecolor="none" if published else style.colour,
                linestyle="--" if published else "-",
                linewidth=1.2,
                markersize=5.5,
                capsize=2.5,
            )
        axes.set_xlabel("visual tokens pruned (%)")
        axes.set_ylabel("score ratio (%)")
        axes.grid(alpha=0.3, linewidth=0.6)
        axes.legend(frameon=False)
        with writing(path, "--plot"), atomic_path(path) as temporary:
            kind = path.suffix[1:].lower()
            figure.savefig(temporary, format=kind, dpi=_DPI, metadata={"Date": None} if kind == "svg" else None)


def _groups(report: Report) -> dict[tuple[str | None, bool], list[_Point]]:
    """The points to draw, by method and whether they are published, each group by pruning ratio."""
    groups = {}
    for published in (False, True):
        for method in in_order(row.method for row in report.rows):
            rows = [row for row in report.rows if (row.method, row.published) == (method, published)]
            if points := [point for row in rows if (point := _point(row))]:
                groups[method, published] = sorted(points, key=lambda point: point.x)
    return groups


def _point(row: ReportRow) -> _Point | None:
    """None where a number is unknown."""
    value, low, high = row.ratio.value, row.ratio.low, row.ratio.high
    if row.pruning_ratio is None or value is None:
        return None
    # An interval of percentiles need not hold the value, so an arm may have no length.
    below, above = (0.0 if end is None else max(0.0, sign * (end - value)) for end, sign in ((low, -1), (high, 1)))
    return _Point(row.name, row.pruning_ratio, value, below, above)


@contextlib.contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Turns what the system says about an output file into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{option}: {path} cannot be written ({error.strerror or error}); name a file in a folder that can be"
        ) from None
