"""Temporary files and folders beside those that they become: named after their writer, so that what a kill leaves is
found and removed by the next command, and what a living one writes is left alone."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

try:
    import fcntl
except ImportError:  # Windows, where there is the process number alone
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"\.(?P<target>.+)\.fast3d-(?P<process>[0-9]{1,10})-[0-9a-f]{8}", re.ASCII | re.DOTALL)
"""Hidden, named after the file that it becomes and the process that writes it: nobody else names a file like that."""


def _name_for(path: Path) -> Path:
    return path.with_name(f".{path.name}.fast3d-{os.getpid()}-{secrets.token_hex(4)}")


@contextlib.contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, this process's alone while the block runs; removed unless it was moved away."""
    temporary = _name_for(path)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        if fcntl is None:
            os.close(handle)  # Windows moves no file that is open
        else:
            try_lock(handle)
        yield temporary
    finally:
        if fcntl is not None:
            os.close(handle)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, this process's alone while the block runs; removed at its end, whatever is in it.

    What killed writers of the same folder left is removed first.
    """
    _remove_left_folders(path)
    temporary = _name_for(path)
    temporary.mkdir()
    try:
        with _locked_folder(temporary):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_left_folders(path: Path) -> None:
    with contextlib.suppress(OSError):
        for entry in path.parent.iterdir():
            name = _NAME.fullmatch(entry.name)
            if name is None or name["target"] != path.name:
                continue
            if entry.is_symlink() or not entry.is_dir():
                continue
            with _locked_folder(entry) as locked:
                if locked and not _lives(name["process"], entry.stat().st_mtime):
                    shutil.rmtree(entry, ignore_errors=True)


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[bool]:
    """Yields whether this process has the lock of the folder; where folders have none, the process number has to do."""
    if fcntl is None:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield try_lock(handle)
    finally:
        os.close(handle)


def is_temporary(name: str) -> bool:
    """Whether a file of that name is one that `temporary_file` made."""
    return _NAME.fullmatch(name) is not None


def remove_left(folder: Path, target: str | None = None) -> None:
    """Removes the temporary files in a folder whose writers are gone; of the file named `target` alone, if it is given.

    What cannot be removed stays.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = _NAME.fullmatch(entry.name)
            if name is None or name["target"] != (target or name["target"]):
                continue
            if entry.is_file(follow_symlinks=False) and _is_left(Path(entry.path), name["process"]):
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)  # noqa: PTH108 (entry is no Path)


def _is_left(path: Path, process: str) -> bool:
    """Whether the writer of a temporary file is gone. The lock shows that across machines and containers; the process,
    where a library has replaced the file that is locked."""
    try:
        handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        return try_lock(handle) and not _lives(process, os.fstat(handle).st_mtime)
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Whether this process has the lock of an open file now, until it closes it or ends; also where there are none."""
    if fcntl is None:
        return _try_lock_on_windows(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def _try_lock_on_windows(handle: int) -> bool:
    import msvcrt

    os.lseek(handle, 1 << 30, os.SEEK_SET)  # far behind the text, which others may read
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError:
        return False
    finally:
        os.lseek(handle, 0, os.SEEK_SET)
    return True


def _lives(process: str, written: float) -> bool:
    """Whether the process is there and is not a later one of the same number: one that began after it was written."""
    try:
        return psutil.Process(int(process)).create_time() <= written + 1
    except (psutil.Error, OverflowError, ValueError):
        return False
