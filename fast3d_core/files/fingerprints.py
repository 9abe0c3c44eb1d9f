"""What a piece of work depends on, so that it is continued only by the very same work."""

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fast3d_core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

_LLM_SUFFIXES = (".json", ".model", ".safetensors", ".bin")
_WHOLE_BYTES, _SAMPLED_BYTES = 64 << 20, 1 << 20


def fingerprint(path: Path, *, whole: bool = False) -> str:
    """Size and digest; of large files only of the first and the last MiB, so that 14 GB need not be read.

    Args:
        whole: digest all of it, however large: two trainings of one network may well agree at both ends.

    Raises `DataError` when there is no such file.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file")
    size = path.stat().st_size
    with path.open("rb") as file:
        if whole or size <= _WHOLE_BYTES:
            digest = hashlib.sha256()
            while part := file.read(_SAMPLED_BYTES):
                digest.update(part)
        else:
            digest = hashlib.sha256(file.read(_SAMPLED_BYTES))
            file.seek(-_SAMPLED_BYTES, os.SEEK_END)
            digest.update(file.read())
    return f"{size}-{digest.hexdigest()[:16]}"


def content_fingerprint(content: bytes) -> str:
    """What `fingerprint` says, with `whole`, about a file of this content."""
    return f"{len(content)}-{hashlib.sha256(content).hexdigest()[:16]}"


def file_hash(path: Path) -> str:
    """sha256 of all of a file. Raises `DataError` when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(_SAMPLED_BYTES):
                digest.update(part)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def digest(tensor: "Tensor") -> str:
    """A short digest of a tensor's numbers."""
    return hashlib.sha256(tensor.contiguous().cpu().numpy().tobytes()).hexdigest()[:16]


def llm_files(folder: Path) -> list[Path]:
    """The files of a Hugging Face folder that answers depend on."""
    return [path for path in sorted(folder.iterdir()) if path.suffix in _LLM_SUFFIXES]


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Where two plain values differ, as "key: old -> new"; for saying why work cannot be continued."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*new, *(key for key in old if key not in new)]
        return [d for key in keys for d in differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)]
    new = json.loads(json.dumps(new))  # as it would be read back
    return [] if old == new else [f"{name[:100]}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
