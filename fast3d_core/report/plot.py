"""The figure for a paper: score ratio against pruning ratio, a line and a marker for each method.

It needs matplotlib, which is an extra: `pip install "fast3d[plot]"`.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from fast3d_core.data.files import atomic_path
from fast3d_core.errors import DataError, UsageError
from fast3d_core.pruning import METHODS
from fast3d_core.report.build import Estimate, Report, Row

SUFFIXES = (".png", ".svg")
_DPI = 300
# Okabe and Ito's colours, which colour-blind readers tell apart, and a marker for those who print in grey.
_LOOKS = {
    "vanilla": ("vanilla", "black", "o"),
    "random": ("random", "#7d848e", "X"),
    "fastv": ("FastV", "#d55e00", "^"),
    "gap": ("GAP", "#0072b2", "s"),
    "sap": ("GAP+SAP", "#009e73", "D"),
}


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
            "there is nothing to plot: no run has both a pruning ratio and a score ratio to a vanilla run; "
            "add a vanilla run, or name one with --vanilla RUN"
        )
    # Text stays text in an SVG, and nothing in the file tells the day or is drawn at random.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fast3d", "font.size": 9}):
        figure = Figure(figsize=(4.8, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for (method, published), rows in groups.items():
            title, colour, marker = _LOOKS.get(method or "", (method or "scored", "#cc79a7", "P"))
            axes.errorbar(
                [row.pruning_ratio for row in rows],
                [row.ratio.value for row in rows],
                yerr=list(zip(*(_arms(row.ratio) for row in rows), strict=True)),
                label=f"{title} (published)" if published else title,
                color=colour,
                marker=marker,
                markerfacecolor="none" if published else colour,
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


def _groups(report: Report) -> dict[tuple[str | None, bool], list[Row]]:
    """The rows to draw, by method and whether they are published, each group by pruning ratio."""
    groups: dict[tuple[str | None, bool], list[Row]] = {}
    for published in (False, True):
        for method in (*METHODS, None):
            rows = [
                row
                for row in report.rows
                if (row.method, row.published) == (method, published)
                and row.pruning_ratio is not None
                and row.ratio.value is not None
            ]
            if rows:
                groups[method, published] = sorted(rows, key=lambda row: row.pruning_ratio or 0.0)
    return groups


def _arms(estimate: Estimate) -> tuple[float, float]:
    """How far the interval reaches below and above the value; it need not hold it, so an arm may have no length."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None or low is None or high is None:
        return 0.0, 0.0
    return max(0.0, value - low), max(0.0, high - value)


@contextlib.contextmanager
def writing(path: Path, option: str) -> Iterator[None]:
    """Turns what the system says about an output file into a `DataError`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{option}: {path} cannot be written ({error.strerror or error}); name a file in a folder that can be"
        ) from None
