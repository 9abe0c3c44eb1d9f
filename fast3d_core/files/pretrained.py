"""Folders in Hugging Face's layout, from strangers: what transformers may be given of them."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fast3d_core.errors import DataError
from fast3d_core.files.files import load_json, load_torch, need_file, unfinished_part
from fast3d_core.files.tensors import TensorFile
from fast3d_core.text import shown

# In the order in which transformers looks for them.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

# What a config.json says about a network. The rest is left out: some of it makes transformers fetch code.
NETWORK = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("max_position_embeddings", "initializer_range", "pad_token_id", "bos_token_id", "eos_token_id"),
)
_SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "num_key_value_heads", "head_dim", "type_vocab_size"),
)
_MOST = {"num_hidden_layers": 1000, "vocab_size": 10**7}  # else 10^6
_NONE_TOO = ("num_key_value_heads", "head_dim")  # follow from the others


def network_settings(content: Mapping[str, Any], more: Collection[str], path: Path, what: str) -> dict[str, Any]:
    """What a config.json says about a network: what `NETWORK` and `more` name of it, its sizes checked.

    Raises `DataError` for a size that no network has.
    """
    settings = {key: content[key] for key in (*NETWORK, *more) if key in content}
    for key in _SIZES:
        value, most = settings.get(key, 1), _MOST.get(key, 10**6)
        if value is None and key in _NONE_TOO:
            continue
        if type(value) is not int or not 1 <= value <= most:
            raise DataError(f"{what}: {path}: {key} is {shown(value)}, not a number from 1 to {most}")
    return settings


def weight_files(folder: Path, what: str) -> list[Path]:
    """The files that transformers reads the weights from; `DataError` where there are none, or one is missing."""
    found = next((name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise DataError(f"{what}: {folder} holds no weights: none of {', '.join(_WEIGHTS)}")
    if not found.endswith(".json"):
        return [need_file(folder / found, what)]
    content = load_json(folder / found, what)
    names = content.get("weight_map") if isinstance(content, dict) else None
    files = set(names.values()) if isinstance(names, dict) and all(map(_is_text, names.values())) else set()
    if not files or any(Path(file).name != file for file in files):
        raise DataError(f"{what}: {folder / found} should say under 'weight_map' which file holds which tensor")
    if missing := sorted(file for file in files if not (folder / file).exists()):
        names = ", ".join(name[:80] for name in missing[:3]) + (" and more" if len(missing) > 3 else "")
        raise DataError(
            f"{what}: {folder} lacks {names}, {len(missing)} of the {len(files)} files that {found} names"
            f"{unfinished_part(folder / missing[0]) or '; download what is missing'}"
        )
    return [need_file(folder / file, what) for file in sorted(files)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def open_tensors(files: Iterable[Path], what: str) -> dict[str, Tensor]:
    """The tensors in weight files, mapped into memory: of their numbers only those are read that are used."""
    tensors: dict[str, Tensor] = {}
    for path in files:
        content = TensorFile(path, what) if path.suffix == ".safetensors" else load_torch(path, what, mmap=True)
        if not isinstance(content, Mapping):
            raise DataError(f"{what}: {path} holds no tensors by name")
        tensors |= {name: value for name, value in content.items() if isinstance(value, Tensor)}
    return tensors
