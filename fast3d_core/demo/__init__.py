"""The embedded demo: generated rooms, questions about them, and a small Chat-Scene and GAP network that were trained on
such rooms. `README.md` beside this file says how."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from fast3d_core import __version__
from fast3d_core.config import NAME
from fast3d_core.errors import DataError
from fast3d_core.files import cache
from fast3d_core.files.temporary import temporary_folder

FOLDER = "demo"
"""What the demo's folder in the cache is called, with a stamp behind it; see `demo_folder`."""

WEIGHTS = Path(__file__).parent / "weights"
MEASURED = Path(__file__).parent / "measured.json"
"""The report of the release's measurement on the held-out test split."""

_WRITTEN_BY = ".demo"  # what the folder was written from


def demo_folder() -> Path:
    """Where the demo is, or will be written: in the cache, by the stamp of this release, so that several releases do
    not take each other's place. A folder `demo` there that fast3d did not write is the user's own and comes first."""
    own = cache.CACHE / FOLDER
    if (own / NAME).exists() and not (own / _WRITTEN_BY).exists():
        return own
    return cache.CACHE / f"{FOLDER}-{stamp()}"


def ensure_demo(folder: Path, log: Callable[[str], None] = lambda _: None) -> None:
    """Writes the demo to `folder` unless it is there; one that another release wrote is replaced.

    Args:
        log: called when there is something to wait for.

    Raises:
        DataError: it cannot be written, or something else is there.
    """
    if _is_current(folder):
        return
    from filelock import FileLock  # one of the processes that a launcher starts writes, the others wait

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if not _is_current(folder):
                log(f"writing the embedded demo to {folder}, once; it takes some 20 seconds")
                place_demo(folder)
    except OSError as error:
        raise DataError(
            f"the demo cannot be written to {folder} ({error.strerror or error}); set FAST3D_CACHE to a folder that "
            "can be written, or name files of your own with --config"
        ) from None


def stamp() -> str:
    """Of the release, and of the sources and weights that the demo is made from: where these are equal, so is the
    demo, wherever they are installed."""
    digest = hashlib.sha256(__version__.encode())
    here = WEIGHTS.parent
    for path in sorted(path for path in [*here.rglob("*.py"), *WEIGHTS.iterdir()] if path.is_file()):
        digest.update(f"{path.relative_to(here).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())  # 27 MB, in some 40 ms
    return digest.hexdigest()[:16]


def _is_current(folder: Path) -> bool:
    """Whether there is a demo, of this release or of the user's own making."""
    written_by = folder / _WRITTEN_BY
    if not (folder / NAME).exists():
        return False
    return not written_by.exists() or written_by.read_text() == stamp()


def is_placed(folder: Path) -> bool:
    """Whether the demo of this release was written to the folder by `place_demo`."""
    return (folder / _WRITTEN_BY).exists() and _is_current(folder)


def place_demo(folder: Path) -> None:
    """Writes the demo to `folder`, all or nothing, in place of one that is there; `DataError` for anything else."""
    from fast3d_core.demo.release import write_demo

    if folder.exists() and not (folder / _WRITTEN_BY).exists() and any(folder.iterdir()):
        raise DataError(f"{folder} holds something else than the demo; move it away, or set FAST3D_CACHE")
    with temporary_folder(folder) as temporary:
        made = temporary / folder.name
        write_demo(made)
        (made / _WRITTEN_BY).write_text(stamp())
        if folder.exists():
            shutil.move(folder, temporary / "old")
        made.rename(folder)
