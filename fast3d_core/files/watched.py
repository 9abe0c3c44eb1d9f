"""Files that a job names as what it depends on: they must be the ones that it has read."""

from collections.abc import Iterable
from pathlib import Path

from fast3d_core.errors import DataError

_State = tuple[int, int, int]


class WatchedFiles:
    """Remembers files as they were before they were read, and notices when one has been changed or replaced since."""

    def __init__(self) -> None:
        self._seen: dict[Path, _State | None] = {}

    def watch(self, files: Iterable[Path]) -> None:
        """Remembers files; call it before they are read. Those that are known already are left as they are."""
        for path in files:
            self._seen.setdefault(path, _state(path))

    def check(self) -> None:
        """Raises `DataError` where a file is another one than before."""
        for path, seen in self._seen.items():
            if _state(path) != seen:
                raise DataError(f"{path} was changed while it was read; run the same command again")


def _state(path: Path) -> _State | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns
