"""What a .pt file may hold, checked before torch reads it.

torch's restricted unpickler runs no code, but a few bytes can make it allocate all memory (`bytearray(10**11)`, a text
encoded again and again) or for eternity (the hash of tuples in tuples in tuples). So the opcodes are gone through
first, without carrying them out: only the names that tensors and plain data need, no arguments that multiply.
"""

import io
import mmap
import pickletools
import re
import typing
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

ZIP = b"PK\x03\x04"
"""How the files begin that torch has written since 1.6; before, it wrote pickles and numbers one after the other."""

INERT = ("utils.easydict EasyDict", "easydict EasyDict")
"""The one class that Chat-Scene pickles beside its tensors, as its own repository and as PyPI name it."""

_DICTS = ("collections OrderedDict", *INERT)
_CALLABLE = (
    *_DICTS,
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch Size",
    "torch device",
)
_NAMES = re.compile(
    r"torch (Float|Double|Half|BFloat16|Long|Int|Short|Char|Byte|Bool)Storage|torch\.storage UntypedStorage"
    r"|torch (float(16|32|64)|bfloat16|u?int(8|16|32|64)|bool)"
)
_NUMPY = re.compile(r"numpy(\..*)? ")
_MOST_IN_TUPLE = 1000  # with what is in its tuples; a tensor's are a dozen
_ONE, _OWN, _SHARED = 1, "own", "shared"  # a plain value; a container that was made just now, one that was met before
_PLAIN = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("SHORT_BINSTRING", "EMPTY_TUPLE"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


_MOST_DEFLATED = 8
"""Times its size that a compressed file may hold; weights shrink to a half at best, but for zeros."""

NUMPY_ADVICE = (
    "load it where it was made and save it again with torch.save, numbers as float(x) and arrays as torch.from_numpy(x)"
)
FOREIGN_ADVICE = "if it is your own, save it again with torch.save, with tensors and plain data alone"
COMPRESSED_ADVICE = "unpack it and pack it without compression, or load it and save it again with torch.save"


class RefusedError(Exception):
    """Not the pickle of tensors and plain data; says why, where there is more to say than that it is damaged.

    Attributes:
        do: what helps where the file is whole and yet not taken, else empty.
    """

    def __init__(self, reason: str, do: str = ""):
        super().__init__(reason)
        self.do = do


class CompressedError(RefusedError):
    """Compressed beyond what is read. The file may well be whole."""


class Packed(NamedTuple):
    """How a file keeps its content.

    Attributes:
        size: bytes of what it holds, unpacked.
        archive: whether it is a zip archive, of which tensors can be mapped into memory unless they are `deflated`.
    """

    size: int
    archive: bool
    deflated: bool


def check_file(path: Path) -> Packed:
    """How the file keeps its content.

    Raises `RefusedError`, or for a damaged file anything else, unless it holds tensors and plain data alone.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) == ZIP:
            pickled, packed = _pickle_in(file, size)
            check_pickle(io.BytesIO(pickled))
            return packed
        if size == 0:
            raise EOFError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
            for _ in range(5):  # magic number, version, machine, content, names of the storages
                check_pickle(whole)
    return Packed(size, archive=False, deflated=False)


def _pickle_in(file: IO[bytes], size: int) -> tuple[bytes, Packed]:
    """The pickle in an archive that torch reads: nothing in it is named twice, or larger than the file, but for what
    deflating may have saved."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = {entry.filename for entry in entries}
        if len(names) < len(entries) or archive.comment:
            raise RefusedError("it is no archive that torch wrote")
        methods = {entry.compress_type for entry in entries}
        if methods - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise CompressedError("it is compressed in a way that torch does not read", COMPRESSED_ADVICE)
        held = sum(entry.file_size for entry in entries)
        deflated = zipfile.ZIP_DEFLATED in methods
        if deflated and held > _MOST_DEFLATED * size:
            raise CompressedError(
                f"it is compressed, and claims to hold more than {_MOST_DEFLATED} times its size", COMPRESSED_ADVICE
            )
        if not deflated and held > size:
            raise RefusedError("it claims to hold more than it does")
        pickled = archive.read(entries[0].filename.partition("/")[0] + "/data.pkl")
        return pickled, Packed(max(held, size), True, deflated)


def check_pickle(file: Any) -> None:
    """Raises `RefusedError` unless the pickle that begins here holds tensors and plain data and no trap.

    Args:
        file: something with `read` and `readline`; left behind the pickle.
    """
    try:
        _follow(file)
    except RefusedError:
        raise
    except (ValueError, IndexError, KeyError, TypeError):  # a stack that is empty, text that is none
        raise RefusedError("") from None


def _follow(file: Any) -> None:
    """Goes through the opcodes as torch's unpickler would, with `_ONE`, `_OWN`, `_SHARED`, a tuple's size (an int), or
    a global's name in place of each value."""
    stack: list[Any] = []
    below: list[list[Any]] = []  # stacks under a mark
    memo: dict[int, Any] = {}
    for op, found, _ in pickletools.genops(file):
        name, argument = op.name, typing.cast(Any, found)
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in _PLAIN:
            stack.append(_ONE)
        elif name in ("BINGET", "LONG_BINGET"):
            known = memo[argument]
            stack.append(_SHARED if known is _OWN else known)
        elif name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [_tuple(stack[-count:])]
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name == "TUPLE":
            items, stack = stack, below.pop()
            stack.append(_tuple(items))
        elif name == "BINPERSID":
            stack[-1] = _ONE
        elif name == "REDUCE":
            arguments = stack.pop()
            stack[-1] = _called(stack[-1], arguments)
        elif name in ("SETITEMS", "APPENDS"):
            stack = below.pop()
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append(_OWN)
        elif name in ("SETITEM", "APPEND"):
            del stack[-2 if name == "SETITEM" else -1 :]
        elif name == "GLOBAL":
            if argument not in _CALLABLE and not _NAMES.fullmatch(argument):
                advice = NUMPY_ADVICE if _NUMPY.match(argument) else FOREIGN_ADVICE
                raise RefusedError(f"it wants to import {argument[:80].replace(' ', '.')}", advice)
            stack.append(argument)
        elif name == "NEWOBJ":
            arguments = stack.pop()
            if stack[-1] not in _DICTS:
                raise RefusedError("it makes objects that are no tensors")
            stack[-1] = _called(stack[-1], arguments)
        elif name == "BUILD":
            if stack.pop() is not _OWN or stack[-1] not in (_OWN, _SHARED):
                raise RefusedError("it sets attributes of something else than a mapping")
        elif name not in ("PROTO", "STOP"):
            raise RefusedError(f"its pickle holds the opcode {name}")


def _tuple(items: list[Any]) -> int:
    size = 1 + sum(item if isinstance(item, int) else _ONE for item in items)
    if size > _MOST_IN_TUPLE:
        raise RefusedError("it holds tuples in tuples in tuples")
    return size


def _called(function: Any, arguments: Any) -> Any:
    """What a call gives. A mapping is made empty: made of another one, it would double what that takes."""
    if function not in _CALLABLE:
        raise RefusedError("it calls something else than what makes tensors")
    if function not in _DICTS:
        return _ONE
    if arguments != _ONE:
        raise RefusedError("it makes mappings of mappings")
    return _OWN


def plain_tensors(content: Any) -> Iterator[Any]:
    """Every tensor in nested dicts, lists and tuples, each container gone through once however often it is met."""
    from torch import Tensor

    pending, seen = [content], set()
    while pending:
        value = pending.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            pending.extend(value.values() if isinstance(value, dict) else value)
