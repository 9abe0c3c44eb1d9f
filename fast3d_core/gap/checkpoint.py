"""GAP weights: the published `.pth` form and our `.safetensors`, read into the same network."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core.config import Config, need_checkpoint
from fast3d_core.errors import DataError
from fast3d_core.files.checkpoints import state_dict, unwrapped
from fast3d_core.files.files import atomic_path, load_torch, need_file
from fast3d_core.files.tensors import TensorFile, is_name, raise_if_unwritable, write_tensors
from fast3d_core.gap.network import GapNetwork, GapShape
from fast3d_core.gap.text import empty_text_encoder, load_text_config
from fast3d_core.text import first_line, shown

_WHAT = "gap.checkpoint"
_ANCHOR = "obj_feat_projector.weight"  # a name in every checkpoint
# Counters, no weights, which transformers before 4.31 saved with a text encoder; `load_gap` makes them itself.
_BUFFER = re.compile(r"text_encoder\.embeddings\.(position_ids|token_type_ids)")
_MOST_LAYERS = 1000  # building more would take minutes
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def load_gap(config: Config, device: torch.device) -> GapNetwork:
    """The network in `config.gap.checkpoint`, in float32 and evaluation mode.

    All weights come from the checkpoint, the text encoder's too (training fine-tunes it); of `config.gap.text_encoder`
    only sizes and tokeniser are used. Sizes are read off the tensors; `config.gap.heads` counts where they do not show
    it.

    Raises:
        DataError: the file is missing or damaged, or its tensors do not make a GAP network on this text encoder.
    """
    path = need_checkpoint(config, _WHAT)
    tensors, metadata = read_tensors(path)
    heads = metadata.get("heads", config.gap.heads)
    shape = _shape_of(tensors, heads, path)
    text = load_text_config(config.gap.text_encoder)
    width = tensors["text_encoder.embeddings.word_embeddings.weight"].shape[-1]
    if width != text.hidden_size:
        raise DataError(
            f"gap.text_encoder: {config.gap.text_encoder} is {text.hidden_size} wide, the text encoder in {path} is "
            f"{width} wide; name the encoder that the checkpoint was trained on"
        )
    encoder = empty_text_encoder(config.gap.text_encoder, text)
    try:
        with torch.device("meta"):
            network = GapNetwork(shape, encoder)
    except Exception as error:  # sizes that make no sense together, or are no numbers
        raise DataError(f"{_WHAT}: {path} and gap.text_encoder make no network ({first_line(error)})") from None
    _check(tensors, network, path)
    network = network.to_empty(device="cpu")
    network.text_encoder.embeddings.register_buffer(
        "position_ids", torch.arange(text.max_position_embeddings)[None], persistent=False
    )
    network.text_encoder.embeddings.register_buffer(
        "token_type_ids", torch.zeros(1, text.max_position_embeddings, dtype=torch.long), persistent=False
    )
    network.load_state_dict(tensors)
    return network.to(device).eval()


def save_gap(path: Path, network: GapNetwork, step: int) -> None:
    """Writes the weights as safetensors, atomically."""
    write_tensors(path, network.state_dict(), {"step": step, "heads": network.shape.heads})


def write_published(path: Path, tensors: Mapping[str, Tensor], step: int) -> None:
    """Writes weights in the published form, without an optimizer's state, atomically."""
    with raise_if_unwritable(path), atomic_path(path) as temporary:
        torch.save({"step": step, "optimizer_state_dict": {}, "model_state_dict": dict(tensors)}, temporary)


def read_tensors(path: Path, what: str = _WHAT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a GAP file, and the plain data that ours hold beside them.

    Args:
        what: what errors call the file.

    Raises:
        DataError: the file is missing or damaged, or holds anything but ordinary tensors of floats by name.
    """
    need_file(path, what)
    metadata: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        file = TensorFile(path, what)
        state, metadata = dict(file), file.metadata
    else:
        found = state_dict(load_torch(path, what), "model_state_dict")
        if found is None or not all(map(is_name, found)):
            raise DataError(f"{what}: {path} is not a GAP checkpoint: it has no 'model_state_dict' of tensors")
        state = found
    named = unwrapped(state, _ANCHOR, f"{what}: {path}")
    tensors = {name: tensor for name, tensor in named.items() if not _BUFFER.fullmatch(name)}
    _check_ordinary(tensors, path, what)
    return tensors, metadata


def _check_ordinary(tensors: Mapping[str, Any], path: Path, what: str) -> None:
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype not in _DTYPES:
            raise DataError(f"{what}: {path} is not a GAP checkpoint: {shown(name)} is no ordinary tensor of floats")


def _shape_of(tensors: Mapping[str, Tensor], heads: Any, path: Path) -> GapShape:
    """The sizes that the tensors have. Raises `DataError` where one that shows a size is missing or makes no sense."""

    def sizes(name: str, dimensions: int = 2) -> tuple[int, ...]:
        if name not in tensors or tensors[name].dim() != dimensions or not tensors[name].numel():
            raise DataError(f"{_WHAT}: {path} is not a GAP checkpoint: no {dimensions}-d tensor {name}")
        return tuple(tensors[name].shape)

    hidden, features = sizes("obj_feat_projector.weight")
    sizes("text_encoder.embeddings.word_embeddings.weight")
    feedforward, _ = sizes("mm_encoder.layers.0.linear1.weight")
    condition = "mm_encoder.layers.0.self_attn.lang_cond_fc.weight"
    spatial = condition in tensors
    if spatial:  # six numbers a head
        heads = sizes(condition)[0] // 6
    if type(heads) is not int or heads < 1 or hidden % heads:
        raise DataError(f"{_WHAT}: {path} is {hidden} wide, which {heads!r} heads do not divide; set gap.heads")
    prefix = "mm_encoder.layers."
    numbers = {name.removeprefix(prefix).split(".")[0] for name in tensors if name.startswith(prefix)}
    if len(numbers) > _MOST_LAYERS:
        raise DataError(f"{_WHAT}: {path} is not a GAP checkpoint: it has {len(numbers)} layers")
    return GapShape(
        features=features,
        objects=sizes("obj_id_embedding.weight")[0],
        hidden=hidden,
        heads=heads,
        layers=len(numbers),
        feedforward=feedforward,
        spatial=spatial,
    )


def _check(tensors: Mapping[str, Tensor], network: GapNetwork, path: Path) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = sorted(wanted.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - wanted.keys())
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {size}"
        for name, size in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != size
    ]
    for problem, names in (("lacks", missing), ("has tensors of unknown name:", unexpected), ("has", wrong)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise DataError(f"{_WHAT}: {path} {problem} {', '.join(names[:3])}{more}; does gap.text_encoder fit it?")
    if bad := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise DataError(f"{_WHAT}: {path} holds NaN or infinity in {bad[0]}")
