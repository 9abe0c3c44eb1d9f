"""Reading and writing files: nothing that is read may run code, nothing that is written is left half-done."""

import contextlib
import difflib
import json
import math
import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from fast3d_core.errors import DataError
from fast3d_core.files import pickles
from fast3d_core.files.temporary import remove_left, temporary_file
from fast3d_core.text import first_line

# Read as an OrderedDict, a type torch's restricted unpickler fills without running anything.
_INERT: list[Any] = [(OrderedDict, name.replace(" ", ".")) for name in pickles.INERT]

_VIEWS = 4  # times the file's size that its tensors may add up to: several may show the same numbers
_HALF_PAIR = re.compile(r"[\ud800-\udfff]|\\u[dD][89a-fA-F]")  # perhaps half: JSON may spell both halves
_DEEPEST = 100  # containers in containers; our files have five

_SHARD = re.compile(r"-\d{5}-of-\d{5}\b")
_UNFINISHED = (".incomplete", ".part", ".partial", ".aria2", ".crdownload")  # how downloaders' files end until whole


NOT_UTF8 = "has a path that is not UTF-8, by which this kind of file cannot be opened; give it another name"


def need(path: Path, what: str) -> Path:
    """`path` if it exists, else a `DataError` that names the nearest name in its folder."""
    try:
        path.stat()
        return path
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # no permission to look, a name that is too long, or links that lead to each other
        raise DataError(f"{what}: {str(path)[:200]} cannot be read ({error.strerror})") from None
    if path.is_symlink():
        raise DataError(f"{what}: {path} does not exist: it is a link to what is gone")
    raise DataError(f"{what}: {path} does not exist{_hint(path)}")


def _hint(path: Path) -> str:
    """What may have become of a file that is not there."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder}"
    names = [p.name for p in folder.iterdir()]
    if part := unfinished_part(path):
        return part
    if _SHARD.search(path.name):  # the others of its number are no less wanted
        names = [name for name in names if not _SHARD.search(name)]
    if near := difflib.get_close_matches(path.name, names, n=1):
        return f"; did you mean {near[0]}?"
    return "; a download into this folder did not finish, run it again" if _hidden_parts(folder) else ""


def unfinished_part(path: Path) -> str:
    """What to say of a missing file whose download left a part of it; empty where none did."""
    parts = [p.name for p in path.parent.iterdir() if p.name.startswith(path.name) and p.name.endswith(_UNFINISHED)]
    return f"; its download did not finish ({min(parts)}), run it again" if parts else ""


def unfinished(folder: Path) -> list[Path]:
    """What interrupted downloads left in a folder; huggingface_hub and `fast3d download` keep theirs in hidden ones."""
    return sorted(p for p in folder.iterdir() if p.name.endswith(_UNFINISHED)) + _hidden_parts(folder)


def _hidden_parts(folder: Path) -> list[Path]:
    return sorted([*folder.glob(".cache/huggingface/download/*.incomplete"), *folder.glob(".download-*")])


def need_file(path: Path, what: str) -> Path:
    """`path` if it is a file that is what its name says, as far as its first bytes show.

    Raises `DataError` for one that is missing, no file, not readable, or a stand-in: git-LFS's pointer, or a web page
    that was saved in its place.
    """
    need(path, what)
    if not (path.is_file() or path.is_dir()):
        raise DataError(f"{what}: {path} is no file")  # to open a pipe is to wait for it
    try:
        with path.open("rb") as file:
            start = file.read(200)
    except OSError as error:  # a folder, or no permission
        raise DataError(f"{what}: {path} cannot be read ({error.strerror})") from None
    problem = None
    if start.startswith(b"version https://git-lfs.github.com/"):
        problem = "is git-LFS's pointer, not the file itself; run `git lfs pull` there, or download it again"
    elif start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        problem = "is a web page, such as one that asks to log in or confirm, not the file; download it again"
    if problem:
        raise DataError(f"{what}: {path} {problem}")
    return path


def load_torch(path: Path, what: str, *, mmap: bool = False) -> Any:
    """The content of a `.pt`/`.pth`/`.bin` file, loaded without executing anything in it (`weights_only=True`).

    Its tensors are ordinary ones on the CPU that want no gradient, and take no more memory than the file has bytes, but
    for those that show the same numbers.

    Raises `DataError` when the file is missing, truncated, or wants to import anything but tensors and plain data.
    """
    import torch  # not at the top: config.py reads files too, and `fast3d --help` must not wait for torch

    packed = _checked(path, what)
    with _torch_problems(path, what):
        with torch.serialization.safe_globals(_INERT), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of old formats; errors say what matters
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=mmap and packed.archive and not packed.deflated
            )
        _check_tensors(content, packed.size)
    return content


def check_torch(path: Path, what: str) -> None:
    """Raises `DataError` for a `.pt`/`.pth`/`.bin` file that is missing, damaged, or holds more than tensors and plain
    data, or is compressed, without loading it; for those that others load, who may map it into memory."""
    if _checked(path, what).deflated:
        raise DataError(f"{what}: {path} is compressed", pickles.COMPRESSED_ADVICE)


def _checked(path: Path, what: str) -> pickles.Packed:
    need_file(path, what)
    with _torch_problems(path, what):
        packed = pickles.check_file(path)
    return packed


@contextlib.contextmanager
def _torch_problems(path: Path, what: str) -> Iterator[None]:
    """A damaged zip or pickle raises almost anything."""
    try:
        yield
    except (pickles.RefusedError, pickle.UnpicklingError) as error:
        do = error.do if isinstance(error, pickles.RefusedError) else ""
        raise DataError(f"{what}: {path} was not loaded: {_refused(error)}", do) from None
    except MemoryError:
        raise DataError(f"{what}: {path} does not fit into memory") from None
    except UnicodeEncodeError:
        raise DataError(f"{what}: {path} {NOT_UTF8}") from None
    except Exception as error:
        raise DataError(f"{what}: {path} cannot be read ({first_line(error)}); is it a complete download?") from None


def _check_tensors(content: Any, size: int) -> None:
    """Raises `RefusedError` where tensors claim more than a file of `size` bytes has: a stride of 0 makes any shape."""
    claimed = 0
    for tensor in pickles.plain_tensors(content):
        if tensor.device.type != "cpu" or tensor.is_neg() or tensor.is_conj():
            raise pickles.RefusedError("it holds tensors of an unusual kind")
        claimed += tensor.numel() * tensor.element_size()
        if tensor.requires_grad:
            tensor.requires_grad_(False)
    if claimed > _VIEWS * size:
        raise pickles.RefusedError(f"its tensors claim {claimed} bytes, it has {size}")


def load_json(path: Path, what: str) -> Any:
    """The content of a JSON file; `DataError` when it is missing or not JSON.

    Its numbers are finite, its integers have at most 64 bits, its texts can be written as UTF-8, and nothing in it is
    nested deeper than Python follows.
    """
    return load_json_text(path, what)[1]


def load_json_text(path: Path, what: str) -> tuple[str, Any]:
    """The text of a JSON file, and its content; see `load_json`."""
    need_file(path, what)
    try:
        text = _decoded(path.read_bytes())
        return text, parse_json(text)
    except OSError as error:
        raise DataError(f"{what}: {path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise DataError(f"{what}: {path} is not valid JSON ({first_line(error)})") from None


def parse_json(text: str | bytes) -> Any:
    """The value that a JSON text of a stranger holds; `ValueError` when it holds none, see `load_json`."""
    try:
        text = _decoded(text) if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_number, parse_float=_number, parse_int=_integer)
        _check_depth(value)
        if _HALF_PAIR.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # raises where it is half indeed
    except UnicodeEncodeError:
        raise ValueError("a text holds half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _decoded(text: bytes) -> str:
    return text.decode(json.detect_encoding(text))


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number is {text[:40]}")
    return number


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"an integer has more than 64 bits: {text[:40]}")
    return int(text)


def _check_depth(value: Any) -> None:
    inside = [value]
    for _ in range(_DEEPEST):
        inside = [one for container in inside for one in _items(container) if isinstance(one, (dict, list))]
        if not inside:
            return
    raise ValueError("nested too deeply")


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A place to write a file that appears under `path` only once it is whole and on disk.

    What killed writers of the same file left beside it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left(path.parent, path.name)
    with temporary_file(path) as temporary:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # not every file system has modes
            temporary.chmod(0o666 & ~_umask())  # safetensors leaves 0600, whoever may read the folder
        temporary.replace(path)


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[str]]:
    """A text file that appears under its name only once it is whole and on disk."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        yield file
        file.flush()


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, written atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def _refused(error: Exception) -> str:
    """What was found in a pickle, without torch's advice to load the file unrestricted."""
    if isinstance(error, pickles.CompressedError):
        return str(error)
    found = re.search(r"WeightsUnpickler error:\s*([^\n]*)", str(error))
    reason = found[1].strip()[:160] if found else str(error) if isinstance(error, pickles.RefusedError) else ""
    return "it is damaged, or holds more than tensors and plain data" + (f" ({reason})" if reason else "")
