"""Reading and writing files: nothing that is read may run code, nothing that is written is left half-done."""

import contextlib
import difflib
import json
import os
import pickle
import re
import secrets
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fast3d_core.errors import DataError

# The one class that Chat-Scene pickles beside its tensors, as its own repository and as PyPI name it. It becomes an
# OrderedDict, a type torch's restricted unpickler fills without running anything.
_INERT: list[Any] = [(OrderedDict, "utils.easydict.EasyDict"), (OrderedDict, "easydict.EasyDict")]

_UNFINISHED = (".incomplete", ".part", ".partial", ".aria2", ".crdownload")  # how downloaders' files end until whole


def need(path: Path, what: str) -> Path:
    """`path` if it exists, else a `DataError` that names the nearest name in its folder."""
    try:
        if path.exists():
            return path
    except OSError as error:  # no permission to look, or a name that is too long
        raise DataError(f"{what}: {str(path)[:200]} cannot be read ({error.strerror})") from None
    raise DataError(f"{what}: {path} does not exist{_hint(path)}")


def _hint(path: Path) -> str:
    """What may have become of a file that is not there."""
    folder = path.parent
    if not folder.is_dir():
        return f"; there is no folder {folder}"
    names = [p.name for p in folder.iterdir()]
    if parts := [name for name in names if name.startswith(path.name) and name.endswith(_UNFINISHED)]:
        return f"; its download did not finish ({min(parts)}), run it again"
    if near := difflib.get_close_matches(path.name, names, n=1):
        return f"; did you mean {near[0]}?"
    return "; a download into this folder did not finish, run it again" if _hidden_parts(folder) else ""


def unfinished(folder: Path) -> list[Path]:
    """What interrupted downloads left in a folder; huggingface_hub and `fast3d download` keep theirs in hidden ones."""
    return sorted(p for p in folder.iterdir() if p.name.endswith(_UNFINISHED)) + _hidden_parts(folder)


def _hidden_parts(folder: Path) -> list[Path]:
    return sorted([*folder.glob(".cache/huggingface/download/*.incomplete"), *folder.glob(".download-*")])


def need_file(path: Path, what: str) -> Path:
    """`path` if it is a file that is what its name says, as far as its first bytes tell.

    Raises `DataError` for one that is missing, no file, not readable, or a stand-in: git-LFS's pointer, or a web page
    that was saved in its place.
    """
    need(path, what)
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

    Raises `DataError` when the file is missing, truncated, or wants to import anything but tensors and plain data.
    """
    import torch  # not at the top: config.py reads files too, and `fast3d --help` must not wait for torch

    need_file(path, what)
    try:
        with torch.serialization.safe_globals(_INERT), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch thinks of old formats; errors tell what matters
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise DataError(f"{what}: {path} was not loaded: {_refused(error)}") from None
    except MemoryError:
        raise
    except Exception as error:  # a damaged zip or pickle raises almost anything
        raise DataError(f"{what}: {path} cannot be read ({_first_line(error)}); is it a complete download?") from None


def load_json(path: Path, what: str) -> Any:
    """The content of a JSON file; `DataError` when it is missing or not JSON."""
    need_file(path, what)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{what}: {path} is not valid JSON ({_first_line(error)})") from None


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A place to write a file that appears under `path` only once it is whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        with contextlib.suppress(OSError):  # not every file system has modes
            temporary.chmod(0o666 & ~_umask())  # safetensors leaves 0600, whoever may read the folder
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _umask() -> int:
    mask = os.umask(0o077)  # there is no way to ask but to set it
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


def _refused(error: pickle.UnpicklingError) -> str:
    """What torch's restricted unpickler found, without its advice to load the file unrestricted."""
    found = re.search(r"WeightsUnpickler error:\s*([^\n]*)", str(error))
    reason = f" ({found[1].strip()[:160]})" if found and found[1].strip() else ""
    return f"it is damaged, or holds more than tensors and plain data{reason}"


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:160] if text else type(error).__name__
