"""Safetensors files, ours with plain data beside the tensors, and where a converted one comes from."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from fast3d_core.errors import DataError
from fast3d_core.files.files import atomic_path, need_file, parse_json
from fast3d_core.files.fingerprints import file_hash, fingerprint
from fast3d_core.text import first_line

if TYPE_CHECKING:
    from torch import Tensor

_METADATA = "fast3d"  # the key of our metadata
_SOURCE = "source"


@dataclass(frozen=True)
class Original:
    """The file that a converted one was made from.

    Attributes:
        name: without its folder; fingerprint: see `settings.fingerprint`; sha256: of all of it.
        size: in bytes; mtime_ns: when it was last changed.
    """

    name: str
    fingerprint: str
    sha256: str
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "Original":
        """What there is to say about a file, all of which is read."""
        about = path.stat()
        return cls(path.name, fingerprint(path), file_hash(path), about.st_size, about.st_mtime_ns)

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` is the one: not touched since, or else of the same content, all of it."""
        about = path.stat()
        same = about.st_mtime_ns == self.mtime_ns
        return about.st_size == self.size and (same or file_hash(path) == self.sha256)


def write_tensors(
    path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, Any], source: Original | None = None
) -> None:
    """A safetensors file with plain data beside the tensors, written atomically.

    Args:
        source: the file that it was converted from.

    Raises `DataError` when it cannot be written.
    """
    from safetensors.torch import save_file

    plain = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
    origin = {} if source is None else {_SOURCE: asdict(source)}
    with raise_if_unwritable(path), atomic_path(path) as temporary:
        save_file(plain, temporary, {_METADATA: json.dumps({**metadata, **origin})})


def is_name(value: Any) -> bool:
    """Whether a safetensors file can hold a tensor of that name."""
    return isinstance(value, str) and value.isascii() and value != "__metadata__"


@contextlib.contextmanager
def raise_if_unwritable(path: Path) -> Iterator[None]:
    """Raises `DataError` where the block cannot write the file `path`."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:  # torch and safetensors have their own words for it
        raise DataError(
            f"{path} cannot be written ({str(error)[:100]}); what was there is kept: make room or give permission"
        ) from None


class TensorFile(Mapping[str, "Tensor"]):
    """A safetensors file, its header read; a tensor is read from disk (by mapping it into memory) when asked for.

    Attributes:
        metadata: our plain data beside the tensors; source: what it was converted from, if it was.

    Raises `DataError` when it is missing or damaged; `what` is what errors call it.
    """

    def __init__(self, path: Path, what: str):
        self.path, self.what = path, what
        need_file(path, what)
        with self._problems():
            self._file = safe_open(path, "pt")
            self._names = dict.fromkeys(self._file.keys())
            metadata = parse_json((self._file.metadata() or {}).get(_METADATA, "{}"))
        self.metadata: dict[str, Any] = metadata if isinstance(metadata, dict) else {}
        self.source = _source(self.metadata.pop(_SOURCE, None))

    def shape(self, name: str) -> tuple[str, tuple[int, ...]]:
        """A tensor's type, as safetensors spells it, and shape, without reading it."""
        with self._problems():
            found = self._file.get_slice(name)
            return found.get_dtype(), tuple(found.get_shape())

    def __getitem__(self, name: str) -> "Tensor":
        if name not in self._names:
            raise KeyError(name)
        with self._problems():
            return self._file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    @contextlib.contextmanager
    def _problems(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{self.what}: {self.path} cannot be read ({first_line(error)}); is it complete?") from None


def _source(value: Any) -> Original | None:
    try:
        source = Original(**value)
    except TypeError:
        return None
    texts = all(isinstance(text, str) for text in (source.name, source.fingerprint, source.sha256))
    return source if texts and type(source.size) is type(source.mtime_ns) is int else None


def network_fingerprint(path: Path) -> str:
    """What distinguishes a network from another one: two trainings of one network may well agree at both ends of the
    file."""
    return next(iter(fingerprints([path], whole=True).values()))


def fingerprints(paths: Iterable[Path], *, whole: bool = False) -> dict[str, str]:
    """Name -> fingerprint of files that work depends on.

    A converted file has the same content as its source, and so goes by the source's name and fingerprint: work that was
    begun with one may be continued with the other.
    """
    prints = {}
    for path in paths:
        source = _converted_from(path)
        if source is None:
            prints[path.name] = fingerprint(path, whole=whole)
        else:
            prints[source.name] = f"{source.size}-{source.sha256[:16]}" if whole else source.fingerprint
    return prints


def _converted_from(path: Path) -> Original | None:
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        return TensorFile(path, "").source
    except DataError:  # whoever reads it will say so
        return None
