"""What a source of released files has to do, and what all sources share: safe names, checks, waiting, free disk."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from fast3d_core.errors import DataError
from fast3d_core.files.digests import check_digest

Log = Callable[[str], None]
T = TypeVar("T")

_WAITS = (1.0, 3.0, 9.0)
"""Seconds before a source that is busy is asked again, where it does not say how long."""

_LONGEST_WAIT = 120.0


class UnavailableError(DataError):
    """The source does not have it or does not give it to us, so another source may be tried."""


class BusyError(Exception):
    """The source asks to come back later.

    Attributes:
        seconds: when, if it says so.
    """

    def __init__(self, problem: str, seconds: float | None = None) -> None:
        super().__init__(problem)
        self.seconds = seconds


@dataclass(frozen=True)
class RemoteFile:
    """A file as its source lists it.

    Attributes:
        name: where it goes, relative to the item's folder; checked by `safe_name`.
        origin: how the source calls it.
        size: in bytes, if the source says so.
        digest: "sha256:<hex>" or "git:<hex>" (git's name of a blob), if the source says so.
    """

    name: str
    origin: str
    size: int | None = None
    digest: str | None = None


class Source(Protocol):
    """Where an item may come from."""

    @property
    def title(self) -> str:
        """Its name for people, such as "Hugging Face lmsys/vicuna-7b-v1.5"."""

    @property
    def link(self) -> str:
        """A page where a person gets the same by hand."""

    def listing(self, revision: str | None, log: Log) -> list[RemoteFile] | None:
        """Its files, or None where that is not known before they are there (an archive).

        Raises `UnavailableError` where the source does not give them, `DataError` where it cannot be reached.
        """

    def fetch(self, files: Sequence[RemoteFile] | None, stage: Path, log: Log, bars: bool) -> Path:
        """Fetches `files` of a listing, whole and checked, and returns the folder under `stage` that holds them.

        What was fetched before an interruption is still in `stage`, which is this source's alone, and is not fetched
        again. `bars` shows progress on
        stderr. Raises as `listing` does.
        """


def safe_name(name: str) -> str:
    """`name` if it is a plain relative path that stays in its folder on every system; `DataError` otherwise."""
    path = PurePosixPath(name)
    bad = not path.parts or path.is_absolute() or ".." in path.parts or any(c in name for c in "\\\0:\n\r")
    if bad or any(len(part.encode(errors="replace")) > 200 for part in path.parts) or len(name) > 1000:
        raise DataError(
            f"a file is named {name[:80]!r}, which leaves its folder or is no name; nothing was taken from there"
        )
    return str(path)


def check_file(path: Path, file: RemoteFile) -> str | None:
    """What is wrong with a fetched file, in a few words; None when its size and digest are those of the listing."""
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size} bytes, not {file.size}"
    return None if file.digest is None else check_digest(path, file.digest)


def patiently(call: Callable[[], T], log: Log) -> T:
    """What `call` returns, asked again a few times while it raises `BusyError`; then a `DataError`."""
    for wait in _WAITS:
        try:
            return call()
        except BusyError as busy:
            wait = min(wait if busy.seconds is None else busy.seconds, _LONGEST_WAIT)
            log(f"{busy}; trying again in {wait:.0f} s")
            time.sleep(wait)
    try:
        return call()
    except BusyError as busy:
        raise DataError(f"{busy}; run the same command later, it goes on where it stopped") from None


def staged_bytes(stage: Path) -> int:
    """What an interrupted download has left in `stage`."""
    return sum(path.stat().st_size for path in stage.rglob("*") if path.is_file() and not path.is_symlink())
