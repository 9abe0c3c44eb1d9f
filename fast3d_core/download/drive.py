"""Google Drive, through gdown, which is an extra: `pip install "fast3d[gdrive]"`.

Drive gives neither sizes nor checksums before it sends a file; gdown compares with the size that it then announces.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import TypeVar

from fast3d_core.download.archives import unpack
from fast3d_core.download.source import BusyError, Log, RemoteFile, UnavailableError, patiently, safe_name
from fast3d_core.errors import DataError
from fast3d_core.files.disk import FullDiskError, need_space

T = TypeVar("T")
_TIMEOUT = 60.0
"""Seconds that Drive may keep silent."""


@dataclass(frozen=True)
class DriveFile:
    """One file, and the name that it gets."""

    id: str
    name: str

    @property
    def title(self) -> str:
        return "Google Drive"

    @property
    def link(self) -> str:
        return f"https://drive.google.com/file/d/{self.id}/view"

    def listing(self, revision: str | None, log: Log) -> list[RemoteFile]:
        return [RemoteFile(self.name, self.id)]

    def fetch(self, files: Sequence[RemoteFile] | None, stage: Path, log: Log, bars: bool) -> Path:
        return _fetch(self.title, files or (), stage, log, bars)


@dataclass(frozen=True)
class DriveFolder:
    """The files of a folder.

    Attributes:
        inside: the folder in it, at any depth, whose files these are; "" for all of it.
        only: the one file name that is wanted, wherever it is; "" for all.
    """

    id: str
    inside: str = ""
    only: str = ""

    @property
    def title(self) -> str:
        return "Google Drive" + (f" ({self.inside}/)" if self.inside else "")

    @property
    def link(self) -> str:
        return f"https://drive.google.com/drive/folders/{self.id}"

    def listing(self, revision: str | None, log: Log) -> list[RemoteFile]:
        gdown = _gdown()
        call = lambda: gdown.download_folder(  # noqa: E731 (called several times)
            id=self.id, quiet=True, skip_download=True, timeout=_TIMEOUT
        )
        entries = patiently(lambda: _asked(self.title, call), log)
        wanted = [RemoteFile(name, entry.id) for entry in entries if (name := self._name(entry.path))]
        twice = [name for name, count in Counter(file.name for file in wanted).items() if count > 1]
        if twice or not wanted:
            raise UnavailableError(
                f"{self.title}: " + (f"holds several {twice[0][:80]}" if twice else "what is wanted is no longer there")
            )
        return wanted

    def _name(self, path: str) -> str | None:
        """The name that the file at `path` in the folder gets; None for one that is not wanted."""
        parts = PurePosixPath(safe_name(path)).parts
        if self.inside:
            if self.inside not in parts[:-1]:
                return None
            parts = parts[parts.index(self.inside) + 1 :]
        if self.only:
            return self.only if parts[-1] == self.only else None
        return str(PurePosixPath(*parts))

    def fetch(self, files: Sequence[RemoteFile] | None, stage: Path, log: Log, bars: bool) -> Path:
        return _fetch(self.title, files or (), stage, log, bars)


@dataclass(frozen=True)
class DriveZip:
    """The files in a zip archive."""

    id: str

    @property
    def title(self) -> str:
        return "Google Drive (a zip archive)"

    @property
    def link(self) -> str:
        return f"https://drive.google.com/file/d/{self.id}/view"

    def listing(self, revision: str | None, log: Log) -> None:
        return None

    def fetch(self, files: Sequence[RemoteFile] | None, stage: Path, log: Log, bars: bool) -> Path:
        archive = "archive.zip"
        _fetch(self.title, [RemoteFile(archive, self.id)], stage, log, bars)
        log(f"unpacking {self.title}")
        try:
            return unpack(stage / "files" / archive, stage / "unpacked")
        except FullDiskError:
            raise
        except DataError as problem:
            (stage / "files" / archive).unlink()  # a second run would find it whole, and refuse it again
            raise UnavailableError(f"{self.title}: {problem}; it was deleted") from None


def _gdown() -> ModuleType:
    try:
        import gdown
    except ImportError:
        raise UnavailableError('Google Drive needs gdown: pip install "fast3d[gdrive]"') from None
    return gdown  # type: ignore[no-any-return]


def _fetch(title: str, files: Sequence[RemoteFile], stage: Path, log: Log, bars: bool) -> Path:
    """Fetches files of Drive to a folder in `stage`; gdown goes on with what it left there."""
    gdown = _gdown()
    folder = stage / "files"
    for file in files:
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        call = partial(
            gdown.download, id=file.origin, output=str(path), quiet=not bars, resume=True, timeout=_TIMEOUT, retries=3,
            progress=_SpaceCheck(folder),
        )  # fmt: skip
        patiently(partial(_asked, f"{title}, {file.name}", call), log)
    return folder


class _SpaceCheck:
    """Called by gdown with the bytes so far and in all: stops before the disk is full, once the size is known."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._checked = folder, False

    def __call__(self, done: int, total: int | None) -> None:
        if total is not None and not self._checked:
            need_space(self._folder, total - done)
            self._checked = True


def _asked(title: str, call: Callable[[], T]) -> T:
    """What `call` to gdown returns, its errors in our words."""
    import requests
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    try:
        return call()
    except requests.HTTPError as error:
        assert error.response is not None  # raise_for_status gives it
        raise _refusal(title, error.response.status_code) from None
    except FileURLRetrievalError:  # its page says no: not shared, gone, or asked for too often today
        raise UnavailableError(f"{title}: Google Drive refuses it (not shared, or asked for too often)") from None
    except DownloadError as error:
        if found := re.search(r"status code (\d{3})", str(error)):  # of a folder's page
            raise _refusal(title, int(found[1])) from None
        if "Failed to parse" in str(error):
            raise UnavailableError(f"{title}: gdown does not understand Google Drive's page of the folder") from None
        raise DataError(f"{title}: cut off ({_words(error)}); run again, it goes on from there") from None
    except requests.RequestException as error:
        raise DataError(f"{title}: cannot be reached ({_words(error)}); run again later") from None
    except (LookupError, AssertionError, AttributeError, TypeError, ValueError, RecursionError):  # in reading a page
        raise UnavailableError(f"{title}: gdown does not understand Google Drive's answer") from None


def _refusal(title: str, status: int) -> Exception:
    if status == 429 or status >= 500:
        return BusyError(f"{title}: busy (HTTP {status})")
    return UnavailableError(f"{title}: Google Drive refuses it (HTTP {status})")


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
