"""What a process does to files in a folder, counted; and its death before one of these operations.

An operation is what changes something that others can see: a file is opened to be written, renamed or removed, a folder
is made. What is written into an open file is none: nobody takes it for whole before it is renamed.
"""

import os
import re
import signal
from pathlib import Path
from typing import Any

from fast3d_core.config import DATASETS

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_FOLDER_ARGUMENTS = {  # event -> where its paths are, and the folders that these are relative to
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.chmod": ((0, 2),),
    "os.utime": ((0, 3),),
    "os.truncate": ((0, None),),
}
_TEMPORARY = re.compile(r"^\.(.+)\.fast3d-[0-9]+-[0-9a-f]{8}$")
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_DATASET = re.compile("|".join(DATASETS))


class Operations:
    """An audit hook: `seen` is what was done under `folder`, as "event path".

    Args:
        at: the number of operations after which the process gets `number`, a signal, before the next one; None: never.
    """

    def __init__(self, folder: Path, at: int | None = None, number: int = signal.SIGKILL):
        self.seen: list[str] = []
        self._folder, self._at, self._signal = f"{folder}{os.sep}", at, number

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        paths = [path for path in _paths(event, args) if path.startswith(self._folder)]
        if not paths:
            return
        if len(self.seen) == self._at:
            os.kill(os.getpid(), self._signal)
        self.seen.append(f"{event} {' -> '.join(path.removeprefix(self._folder) for path in paths)}")


def _paths(event: str, args: tuple[Any, ...]) -> list[str]:
    if event == "open":
        path, _, flags = args
        writes = isinstance(flags, int) and flags & _WRITES
        return [_absolute(path, None)] if writes and isinstance(path, (str, bytes, os.PathLike)) else []
    places = _FOLDER_ARGUMENTS.get(event, ())
    return [_absolute(args[place], None if at is None else args[at]) for place, at in places]


def _absolute(path: Any, folder: Any) -> str:
    """Without opening anything, which would be told to the hook again."""
    if isinstance(path, int):  # a file that is open already
        return os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115
    start = os.readlink(f"/proc/self/fd/{folder}") if isinstance(folder, int) and folder >= 0 else ""  # noqa: PTH115
    return os.path.abspath(os.path.join(start, os.fsdecode(path)))  # noqa: PTH100, PTH118


def kind(operation: str) -> str:
    """What operations of one kind have in common: numbers, datasets and names of temporary files are left out."""
    event, _, paths = operation.partition(" ")
    names = [path.rsplit("/", 1) for path in paths.split(" -> ")]
    plain = ["/".join([*folder, _TEMPORARY.sub(r".\1.TMP", name)]) for *folder, name in names]
    return f"{event} {_DATASET.sub('DATASET', _NUMBER.sub('N', ' '.join(plain)))}"


def of_each_kind(seen: list[str]) -> list[int]:
    """The first operation of each kind."""
    return sorted({kind(operation): number for number, operation in reversed(list(enumerate(seen)))}.values())


def chosen(seen: list[str], most: int) -> list[int]:
    """Before which `most` operations to kill: of as many kinds as there are, and the end."""
    kinds = of_each_kind(seen)
    first = kinds if len(kinds) < most else [kinds[i * len(kinds) // most] for i in range(most)]
    rest = [number for number in range(len(seen) + 1) if number not in first]
    more = min(most - len(first), len(rest))
    return sorted([*first, *(rest[len(rest) - 1 - i * len(rest) // more] for i in range(more))])
