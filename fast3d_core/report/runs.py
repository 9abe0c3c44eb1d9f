"""Finding run folders and reading them."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fast3d_core.benchmarks import benchmark, benchmark_names
from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.result import RESULT_FILE, SCORES_FILE, DatasetStats, Result, load_result, load_stats
from fast3d_core.text import printable, shown

_LARGEST = 1e12  # beyond what is counted in one sample

HOW_TO_COMPLETE = "continue it with the same `fast3d eval` command, or delete the folder"


@dataclass(frozen=True)
class Run:
    """A complete run: its name in the report, its folder, its result, and its headline statistics by dataset."""

    name: str
    path: Path
    result: Result
    stats: dict[str, DatasetStats]


def list_runs(folder: Path) -> tuple[list[Path], list[Path]]:
    """The complete and the incomplete runs in a runs folder, by name; a complete one has a result.json."""
    found = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".") if folder.is_dir() else []
    complete = [path for path in found if (path / RESULT_FILE).is_file()]
    return complete, [path for path in found if path not in complete]


def find_run(folder: Path, run: str) -> Path:
    """The folder of a complete run, given by its name in the runs `folder` or by its path.

    Raises `UsageError` for an unknown run, naming the nearest, and `DataError` for an incomplete one.
    """
    path = next((path for path in (folder / run, Path(run)) if run and _is_folder(path)), None)
    if path is None:
        names = [p.name for p in list_runs(folder)[0]]
        near = difflib.get_close_matches(run, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"it holds {', '.join(names) or 'no complete run'}"
        raise UsageError(f"there is no run {run!r} in {folder}, nor a folder of that path; {hint}")
    if not (path / RESULT_FILE).is_file():
        raise DataError(f"{path} is no complete run: it has no {RESULT_FILE}; {HOW_TO_COMPLETE}")
    return path


def load_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads run folders, the repeated ones once. A run goes by its name, by its path where two have the same name.

    Raises `DataError` for a run that is damaged.
    """
    unique = list({path.resolve(): path for path in folders}.values())
    results = [load_result(path) for path in unique]
    names = [result.name for result in results]
    runs = []
    for path, result in zip(unique, results, strict=True):
        name = result.name if names.count(result.name) == 1 else str(path)
        runs.append(Run(printable(name), path, result, _stats(path)))
    return runs


def _stats(folder: Path) -> dict[str, DatasetStats]:
    if not (folder / SCORES_FILE).is_file():
        raise DataError(f"{folder} has no {SCORES_FILE}, which intervals come from; run `fast3d eval` again")
    stats = load_stats(folder)
    for dataset, entry in stats.items():
        damaged = f"{folder / SCORES_FILE} is damaged ({dataset[:80]})"
        if dataset not in benchmark_names():
            raise DataError(
                f"{folder / SCORES_FILE} has scores of {shown(dataset)}, which is no benchmark that is installed",
                "install its package, name the other runs, or run `fast3d eval` again",
            )
        if not _are_counts(dataset, entry.stats, len(entry.keys)):
            raise DataError(f"{damaged}; run `fast3d eval` again")
        if len(set(entry.keys)) != len(entry.keys):
            raise DataError(f"{damaged}: it repeats a key; run `fast3d eval` again")
    return stats


def _are_counts(dataset: str, rows: np.ndarray, keys: int) -> bool:
    """Whether they are statistics of the dataset, a row for each key, and make a score."""
    if not keys:
        return rows.size == 0
    if rows.shape != (keys, benchmark(dataset).statistics) or not ((rows >= 0) & (rows < _LARGEST)).all():
        return False
    with np.errstate(all="ignore"):
        return bool(np.isfinite(benchmark(dataset).headline_of(rows.sum(0))))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long
        return False
