"""What a run folder holds, and its removal: of a run's own files only, in an order that a kill may cut anywhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fast3d_core.benchmarks import benchmark_names
from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.result import RESULT_FILE, SCORES_FILE
from fast3d_core.files.files import load_json
from fast3d_core.files.temporary import remove_left

SETTINGS_FILE = "settings.json"
PREDICTIONS = "predictions"
PART = re.compile(r"part-(\d{3,6})-(\d{2,6})\.jsonl", re.ASCII)

_REMOVED = ".settings.json.removed"
"""What settings.json becomes when a run's removal begins: from then on its answers belong to nothing."""

_OF_A_RUN = ("method", "datasets", "files", "batch_size")  # keys by which settings are known as a run's


_LONGEST_NAME = 200  # characters: a file system's 255 bytes, less what temporary files put around a name


def check_name(name: str | None) -> None:
    """Raises `UsageError` for a run name that would leave the runs folder; None, where there is to be no name, is one
    that does not."""
    if name is not None and (Path(name).name != name or name.startswith(".") or len(name) > _LONGEST_NAME):
        raise UsageError(f"--name is the name of a folder under the runs folder, not a path: {name[:_LONGEST_NAME]!r}")


def read_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of the run in a folder; None where there are none.

    Raises:
        UsageError: settings.json is that of another program.
        DataError: it is damaged.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        return None
    try:
        content = load_json(path, "run")
    except DataError as error:
        raise DataError(f"{error}; move its folder away, or choose another --name") from None
    if not isinstance(content, dict) or not all(key in content for key in _OF_A_RUN):
        raise UsageError(f"{path} is not of a run of fast3d, so nothing is touched there; choose another --name")
    return content


def remove_run(folder: Path) -> None:
    """Removes a run's files, settings.json first, and leaves all others, the folder too; nothing where there is none.

    Raises `UsageError` or `DataError`, before anything is removed, where settings.json is not a run's.
    """
    if read_settings(folder) is not None:
        (folder / SETTINGS_FILE).replace(folder / _REMOVED)
        _remove_files(folder)


def check_free(folder: Path) -> None:
    """Raises `UsageError` where a folder without settings holds a file that a run would write: it is somebody's."""
    for path in _own_files(folder):
        if path.exists():
            raise UsageError(
                f"{path} is there and belongs to no run of `fast3d eval` (there is no {SETTINGS_FILE}); choose another "
                "--name, or move it away"
            )


def finish_removal(folder: Path) -> None:
    """Goes on with a removal that was interrupted."""
    if (folder / _REMOVED).exists():
        _remove_files(folder)


def _remove_files(folder: Path) -> None:
    inner = folder / PREDICTIONS
    if inner.is_symlink():
        raise DataError(f"{inner} is a link, and what it leads to is not touched; remove it")
    for path in _own_files(folder):
        path.unlink(missing_ok=True)
    remove_left(inner)
    if inner.is_dir() and not any(inner.iterdir()):
        inner.rmdir()
    (folder / _REMOVED).unlink(missing_ok=True)


def _own_files(folder: Path) -> Iterator[Path]:
    yield from parts(folder)
    yield from (folder / name for name in (RESULT_FILE, SCORES_FILE))
    yield from (folder / PREDICTIONS / f"{dataset}.json" for dataset in benchmark_names())


def parts(folder: Path) -> list[Path]:
    """The journal's files, in order."""
    return [path for path in sorted(folder.glob("part-*-*.jsonl")) if PART.fullmatch(path.name)]
