"""One command at a time in a folder: the second is refused, whatever either of them does there."""

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import parse_json
from fast3d_core.files.temporary import remove_left, try_lock
from fast3d_core.text import shown

LOCK_FILE = ".fast3d.lock"
"""In each folder that a command works in. It stays there; what counts is who has it locked, and the system unlocks it
when that process ends, however it ends."""

_MOST_BYTES = 2000  # of what a lock says about its holder


@contextlib.contextmanager
def sole_use(*folders: Path, other: str = "name another folder") -> Iterator[None]:
    """Keeps other fast3d commands out of these folders while the block runs; makes those that are not there.

    Temporary files that killed commands left in them are removed.

    Args:
        other: what the user may do but wait, for the error.

    Raises:
        UsageError: another command is at work in one of them.
        DataError: a folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        for folder in _distinct(folders):
            held.enter_context(_locked(folder, other))
        yield


def _distinct(folders: Iterable[Path]) -> list[Path]:
    """In one order for all commands, so that of two that want the same folders one gets them all."""
    by_path = {os.path.realpath(folder): folder for folder in folders}
    return [by_path[path] for path in sorted(by_path)]


@contextlib.contextmanager
def _locked(folder: Path, other: str) -> Iterator[None]:
    path, new = folder / LOCK_FILE, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path)
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror or error}); {other}") from None
    if handle is None:
        raise UsageError(
            f"{folder} is in use by another fast3d command{_holder(path)}; wait for it, or {other}"
        ) from None
    about = {"process": os.getpid(), "machine": socket.gethostname(), "command": _command()}
    try:
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            os.write(handle, json.dumps(about).encode())
        remove_left(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, 0)
            if new and [one.name for one in folder.iterdir()] == [LOCK_FILE]:  # nothing came of it
                path.unlink()
                folder.rmdir()
        os.close(handle)


def _acquire(path: Path) -> int | None:
    """The lock's open file; None where another process has it locked. A file system without locks refuses nobody."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        if not try_lock(handle):
            os.close(handle)
            return None
        if os.fstat(handle).st_nlink:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, 0)  # what a killed holder wrote of itself
            return handle
        os.close(handle)  # its holder has just removed it


def _command() -> str:
    return " ".join(["fast3d", *sys.argv[1:3]])[:200]


def _holder(path: Path) -> str:
    """Who has the lock, as far as the file says: " (`fast3d eval ...`, process 12 on host)"."""
    try:
        with path.open("rb") as file:
            about = parse_json(file.read(_MOST_BYTES))
        command, process, machine = (shown(about[key]) for key in ("command", "process", "machine"))
        return f" ({command}, process {process} on {machine})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
