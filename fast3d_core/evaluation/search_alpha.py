"""`fast3d search-alpha`: reads the maps of some datasets, and finds and keeps the alpha that prunes a wanted share."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fast3d_core.benchmarks.questions import annotation_file
from fast3d_core.config import Config
from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.found_alpha import write_alpha
from fast3d_core.evaluation.jobs import MapOptions
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.maps.kind import AttentionMap, MapKind
from fast3d_core.maps.origin import is_shipped, load_known_maps, log_unknown
from fast3d_core.maps.published import map_file
from fast3d_core.pruning.alpha_search import Outcome, nearest, outcome, within
from fast3d_core.pruning.sap import Alpha


@dataclass(frozen=True)
class AlphaOptions:
    """Which alpha is wanted.

    Attributes:
        target: percentage of objects to prune, in [0, 100).
        tolerance: how far off the target the result may be, in percent of the target.
        alpha: only show what this one prunes; per_dataset: one for each dataset, that meets the target on it.

    Raises:
        UsageError: a value is out of range, or `alpha` and `per_dataset` are both set.
    """

    target: float = 90
    tolerance: float = 2
    alpha: float | None = None
    per_dataset: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.target < 100:
            raise UsageError(f"--target must lie in [0, 100), not {self.target:g}")
        if not 0 <= self.tolerance < math.inf:
            raise UsageError(f"--tolerance is a percentage of the target, at least 0, not {self.tolerance:g}")
        if self.alpha is not None and not 0 < self.alpha <= 1:
            raise UsageError(f"--alpha must lie in (0, 1], not {self.alpha:g}")
        if self.alpha is not None and self.per_dataset:
            raise UsageError("--alpha only checks one alpha, --per-dataset searches several; give one of them")


@dataclass(frozen=True)
class FoundAlpha:
    """An alpha, what it prunes, and whether that is within the tolerance of the target.

    Attributes:
        path: the file in which `fast3d eval` finds it; None where one was only shown.
    """

    alpha: Alpha
    outcome: Outcome
    valid: bool
    path: Path | None


def search_alpha(
    config: Config,
    options: AlphaOptions,
    maps: MapOptions,
    datasets: Sequence[str] | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> FoundAlpha:
    """Searches the alpha that prunes `options.target` percent, exactly, from the maps alone, and writes it to the runs
    folder; where `options.alpha` is set, reports what that prunes and writes nothing.

    Args:
        datasets: whose maps are read; None: those of the config.
        log: called where maps may be of other questions.

    Raises:
        DataError: a map file is missing or damaged, holds shares, or no alpha meets the target.
    """
    folder = maps.folder_in(config)
    names = list(dict.fromkeys(datasets or config.data.datasets))
    files = WatchedFiles()
    files.watch(map_file(folder, name) for name in names)
    loaded = _load_all(config, folder, names, maps, log)
    target, tolerance = options.target, options.tolerance
    chosen: Alpha
    if options.alpha is not None:
        chosen = options.alpha
    elif options.per_dataset:
        chosen = {name: _search({name: loaded[name]}, target, tolerance, f" of {name}") for name in names}
    else:
        chosen = _search(loaded, target, tolerance)
    found = outcome(loaded, chosen)
    path = None
    if options.alpha is None:
        path = write_alpha(config, files, folder, maps.key_or_default, chosen, found, target, tolerance, maps.kind)
    return FoundAlpha(chosen, found, within(found.ratio, target, tolerance), path)


def _load_all(
    config: Config, folder: Path, names: Sequence[str], maps: MapOptions, log: Callable[[str], None]
) -> dict[str, AttentionMap]:
    """dataset -> the maps of its samples, as logits; `log` is called with those that may be of other questions."""
    loaded, unknown = {}, []
    for name in names:
        loaded[name], known = _load(config, folder, name, maps.key_or_default, maps.kind)
        unknown += [] if known else [name]
    if not is_shipped(config, folder):
        log_unknown(folder, unknown, config.data.annotations, log)
    return loaded


def _load(config: Config, folder: Path, dataset: str, key: str, kind: MapKind | None) -> tuple[AttentionMap, bool]:
    """The maps of a dataset by index, as logits, and whether it is known of which questions.

    The annotations, which would say how many there are, need not be there: maps are enough to choose an alpha.
    """
    questions = annotation_file(config.data.annotations, dataset)
    loaded, known = load_known_maps(folder, dataset, questions, key=key, objects=config.data.max_objects)
    return loaded.as_logits(kind).all(), known


def _search(maps: dict[str, AttentionMap], target: float, tolerance: float, of: str = "") -> float:
    """The alpha of the ratio nearest to the target. Raises `DataError` if that is not within the tolerance."""
    around = nearest(maps, target)
    best = min(around, key=lambda one: abs(one.ratio - target))
    if not within(best.ratio, target, tolerance):
        shown = " and ".join(f"{one.ratio:.6g}% at alpha {one.alpha}" for one in around)
        raise DataError(f"no alpha prunes {target:g}%{of} to within {tolerance:g}% of that; nearest: {shown}")
    return best.alpha
