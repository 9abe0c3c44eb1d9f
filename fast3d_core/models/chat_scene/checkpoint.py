"""The released Chat-Scene checkpoint: which tensor goes where, and LoRA merged into the LLM."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fast3d_core.errors import DataError
from fast3d_core.files.checkpoints import Renamed, state_dict, unwrapped
from fast3d_core.files.files import load_torch
from fast3d_core.files.tensors import TensorFile, is_name
from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.families import Llm
from fast3d_core.models.chat_scene.lora import (
    LLM,
    TARGETS,
    adapter_settings,
    base_layers,
    lora_names,
    with_default_adapter,
)

_EMBED = f"{LLM}model.embed_tokens.weight"
_HEAD = f"{LLM}lm_head.weight"
_ANCHOR = "object_proj.0.weight"  # a name in every checkpoint
# Parts of Chat-Scene that the released settings leave out of the forward pass, but that its save code stores.
_UNUSED = re.compile(
    r"(.*\.)?rotary_emb\.inv_freq$|(pos_proj|pos_embedding|scene_proj|scene_init_proj|encoder_layer|relation_module)\."
)


@dataclass
class Checkpoint:
    """A Chat-Scene checkpoint, its names checked but nothing applied yet.

    Attributes:
        state: name -> tensor, as stored.
        ignored: names that are known to be unused, or unexpected ones that `allow_unexpected` let pass.
        base: the weights that LoRA was trained on by the LLM's own names, where it holds any; see `lora.check_base`.
        settings: those it was trained with, as Chat-Scene stores them beside the tensors; empty where there are none.
    """

    path: Path
    state: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)
    base: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def vocab(self) -> int:
        """Rows of the trained embedding: the LLaMA vocabulary and the object tokens."""
        return self.state[_EMBED].shape[0]

    @property
    def embedding(self) -> Tensor:
        """The trained embedding, (vocab, hidden)."""
        return self.state[_EMBED]

    def feature_widths(self) -> tuple[int, int]:
        """Widths of the 3D and of the 2D features that the projectors read."""
        return self.state["object_proj.0.weight"].shape[1], self.state["object_img_proj.0.weight"].shape[1]

    def lora_ranks(self) -> set[int]:
        """The ranks r that its LoRA pairs have."""
        return {tensor.shape[0] for name, tensor in self.state.items() if ".lora_A." in name}


def load_checkpoint(path: Path, layers: int, *, allow_unexpected: bool = False) -> Checkpoint:
    """Reads a released checkpoint, {"model": state dict, "config": pickled settings, ...}, without executing it, or
    the safetensors file that `fast3d convert` made of one.

    Raises:
        DataError: it holds code, is damaged, lacks tensors the model uses, or has tensors nobody knows.
    """
    state, stored = read_checkpoint(path)
    used = set(_used_names(layers))
    if missing := sorted(used - set(state)):
        raise DataError(f"model.checkpoint: {path} lacks {_listing(missing)}{_instead(state, used)}")
    base = base_layers(state, layers)
    others = sorted(set(state) - used)
    unexpected = [name for name in others if not _UNUSED.match(name) and name not in base.values()]
    if unexpected and not allow_unexpected:
        raise DataError(
            f"model.checkpoint: {path} holds unexpected {_listing(unexpected)}; "
            "set model.allow_unexpected to true to leave them out"
        )
    for name in sorted(used):
        dimensions = 1 if name.endswith(".bias") else 2
        tensor = state[name]
        if tensor.dim() != dimensions or not tensor.numel() or not tensor.is_floating_point():
            raise DataError(
                f"model.checkpoint: {path}: {name} has the shape {tuple(tensor.shape)}, {tensor.dtype}; it should be "
                f"{dimensions}-d floats"
            )
    return Checkpoint(path, {name: state[name] for name in used}, others, Renamed(state, base), stored)


def read_checkpoint(path: Path) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint by the names that Chat-Scene saves, and the settings stored beside them.

    As released, as `fast3d convert` writes them, or as DDP, PEFT and other trainers name them.
    """
    where = f"model.checkpoint: {path}"
    state: Mapping[str, Tensor]
    if path.suffix == ".safetensors":
        file = TensorFile(path, "model.checkpoint")
        state, stored = file, _mapping(file.metadata.get("config"))
    else:
        content = load_torch(path, "model.checkpoint", mmap=True)
        found = state_dict(content, "model")
        if found is None or not all(is_name(name) and isinstance(value, Tensor) for name, value in found.items()):
            raise DataError(f"{where} should hold a state dict under 'model'")
        state, stored = found, _mapping(content.get("config"))
    state = with_default_adapter(unwrapped(state, _ANCHOR, where), where)
    return state, stored or adapter_settings(path, "model.checkpoint")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _used_names(layers: int) -> Iterator[str]:
    yield from (_EMBED, _HEAD)
    for projector in ("object_proj", "object_img_proj"):
        for part in ("0.weight", "0.bias", "2.weight", "2.bias"):
            yield f"{projector}.{part}"
    for layer in range(layers):
        for target in TARGETS:
            yield from lora_names(layer, target)


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    shown = ", ".join(name[:100] for name in names[:6])
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{more}"


def _instead(names: Collection[str], used: Collection[str]) -> str:
    """What a checkpoint has that lacks tensors: where it has them under other names, those names."""
    if not any(name.startswith("object_") for name in names) and any("lora_A" in name for name in names):
        return "; it is LoRA alone, as PEFT saves it: name the checkpoint that holds Chat-Scene's projectors, too"
    others = sorted(name for name in names if name not in used and not _UNUSED.match(name))
    return f"; are they there under other names? It has {_listing(others)}" if others else ""


def check_fit(checkpoint: Checkpoint, shape: LlmShape, objects: int) -> None:
    """Raises `DataError` unless the checkpoint's tensors fit each other, `objects` slots, and an LLM of this shape."""
    rows, hidden = checkpoint.vocab, shape.hidden
    if rows < shape.vocab:
        raise DataError(
            f"model.checkpoint: {checkpoint.path} has {rows} token embeddings, the LLM alone has {shape.vocab}"
        )
    if rows - shape.vocab < objects:
        raise DataError(
            f"model.checkpoint: {checkpoint.path} has {rows - shape.vocab} object tokens, "
            f"data.max_objects asks for {objects}"
        )
    expected: dict[str, tuple[int, ...]] = {_EMBED: (rows, hidden), _HEAD: (rows, hidden)}
    for name, width in zip(("object_proj", "object_img_proj"), checkpoint.feature_widths(), strict=True):
        expected |= {f"{name}.0.weight": (hidden, width), f"{name}.0.bias": (hidden,)}
        expected |= {f"{name}.2.weight": (hidden, hidden), f"{name}.2.bias": (hidden,)}
    for layer in range(shape.layers):
        for target in TARGETS:
            outputs, inputs = _linear_shape(shape, target)
            name_a, name_b = lora_names(layer, target)
            rank = checkpoint.state[name_a].shape[0]
            expected |= {name_a: (rank, inputs), name_b: (outputs, rank)}
    wrong = [
        f"{name} is {tuple(checkpoint.state[name].shape)}, not {size}"
        for name, size in expected.items()
        if tuple(checkpoint.state[name].shape) != size
    ]
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise DataError(f"model.checkpoint: {checkpoint.path} does not fit the LLM: {', '.join(wrong[:4])}{more}")


def _linear_shape(shape: LlmShape, target: str) -> tuple[int, int]:
    """(outputs, inputs) of a linear layer of the LLM."""
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return {
        "self_attn.q_proj": (queries, shape.hidden),
        "self_attn.k_proj": (keys, shape.hidden),
        "self_attn.v_proj": (keys, shape.hidden),
        "self_attn.o_proj": (shape.hidden, queries),
        "mlp.gate_proj": (shape.intermediate, shape.hidden),
        "mlp.up_proj": (shape.intermediate, shape.hidden),
        "mlp.down_proj": (shape.hidden, shape.intermediate),
    }[target]


def projector(checkpoint: Checkpoint, name: str) -> nn.Sequential:
    """`object_proj` (3D) or `object_img_proj` (2D): Linear, GELU, Linear; float32, feature width -> hidden.

    `check_fit` comes before.
    """
    hidden, width = checkpoint.state[f"{name}.0.weight"].shape
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
    state = {key: checkpoint.state[f"{name}.{key}"].to(torch.float32) for key in module.state_dict()}
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


@torch.no_grad()
def merge(checkpoint: Checkpoint, llm: Llm, lora_alpha: float) -> None:
    """Puts the checkpoint into the LLM: W + (alpha / r) B A for each LoRA pair, embedding and lm_head replaced.

    The product is taken in float32 and rounded once to the LLM's dtype. The published run keeps LoRA unmerged under
    bf16 autocast, so in bf16 the two agree to rounding only. `check_fit` comes before.
    """
    for index, layer in enumerate(llm.model.layers):
        for target in TARGETS:
            weight = layer.get_submodule(target).weight
            a, b = (checkpoint.state[name].to(weight.device, torch.float32) for name in lora_names(index, target))
            weight.copy_(weight.float().addmm_(b, a, alpha=lora_alpha / len(a)))
    dtype, rows = llm.dtype, checkpoint.vocab
    llm.model.embed_tokens = nn.Embedding.from_pretrained(checkpoint.state[_EMBED].to(llm.device, dtype))
    llm.lm_head.weight = nn.Parameter(checkpoint.state[_HEAD].to(llm.device, dtype), requires_grad=False)
    llm.lm_head.out_features = rows
    llm.config.tie_word_embeddings = False  # they were trained apart
    llm.config.vocab_size = rows
