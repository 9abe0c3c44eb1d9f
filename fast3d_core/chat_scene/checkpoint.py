"""The released Chat-Scene checkpoint: which tensor goes where, and LoRA merged into the LLM."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from fast3d_core.data.files import load_torch
from fast3d_core.data.tensors import TensorFile
from fast3d_core.errors import DataError

_LLM = "llama_model.base_model.model."
_EMBED = f"{_LLM}model.embed_tokens.weight"
_HEAD = f"{_LLM}lm_head.weight"
_LORA_TARGETS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
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
    """

    path: Path
    state: dict[str, Tensor]
    ignored: list[str] = field(default_factory=list)

    @property
    def vocab(self) -> int:
        """Rows of the trained embedding: the LLaMA vocabulary and the object tokens."""
        return self.state[_EMBED].shape[0]

    def feature_widths(self) -> tuple[int, int]:
        """Widths of the 3D and of the 2D features that the projectors read."""
        return self.state["object_proj.0.weight"].shape[1], self.state["object_img_proj.0.weight"].shape[1]


def load_checkpoint(path: Path, layers: int, *, allow_unexpected: bool = False) -> Checkpoint:
    """Reads a released checkpoint, {"model": state dict, "config": pickled settings, ...}, without executing it, or
    the safetensors file that `fast3d convert` made of one.

    Raises:
        DataError: it holds code, is damaged, lacks tensors the model uses, or has tensors nobody knows.
    """
    state = read_state(path)
    used = set(_used_names(layers))
    if missing := sorted(used - set(state)):
        raise DataError(f"model.checkpoint: {path} lacks {_listing(missing)}")
    others = sorted(set(state) - used)
    unexpected = [name for name in others if not _UNUSED.match(name)]
    if unexpected and not allow_unexpected:
        raise DataError(
            f"model.checkpoint: {path} holds unexpected {_listing(unexpected)}; "
            "set model.allow_unexpected to true to leave them out"
        )
    tensors = {name: state[name] for name in used}
    for name, tensor in tensors.items():
        dimensions = 1 if name.endswith(".bias") else 2
        if tensor.dim() != dimensions or not tensor.numel() or not tensor.is_floating_point():
            raise DataError(
                f"model.checkpoint: {path}: {name} is {tensor.dtype} {tuple(tensor.shape)}, not {dimensions}-d floats"
            )
    return Checkpoint(path, tensors, others)


def read_state(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a checkpoint by name, as released or as `fast3d convert` writes them."""
    if path.suffix == ".safetensors":
        return TensorFile(path, "model.checkpoint")
    content = load_torch(path, "model.checkpoint", mmap=True)
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise DataError(f"model.checkpoint: {path} should hold a state dict under 'model'")
    return state


def _used_names(layers: int) -> Iterator[str]:
    yield from (_EMBED, _HEAD)
    for projector in ("object_proj", "object_img_proj"):
        for part in ("0.weight", "0.bias", "2.weight", "2.bias"):
            yield f"{projector}.{part}"
    for layer in range(layers):
        for target in _LORA_TARGETS:
            yield from _lora_names(layer, target)


def _lora_names(layer: int, target: str) -> tuple[str, str]:
    stem = f"{_LLM}model.layers.{layer}.{target}"
    return f"{stem}.lora_A.default.weight", f"{stem}.lora_B.default.weight"


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    shown = ", ".join(name[:100] for name in names[:6])
    return f"tensor{'s' if len(names) > 1 else ''} {shown}{more}"


def projector(checkpoint: Checkpoint, name: str, hidden: int) -> nn.Sequential:
    """`object_proj` (3D) or `object_img_proj` (2D): Linear, GELU, Linear; float32, feature width -> hidden."""
    width = checkpoint.state[f"{name}.0.weight"].shape[-1]
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))
    shapes = {f"{name}.{key}": tuple(value.shape) for key, value in module.state_dict().items()}
    _check_shapes(checkpoint, shapes)
    state = {key: checkpoint.state[f"{name}.{key}"].to(torch.float32) for key in module.state_dict()}
    module.load_state_dict(state, assign=True)
    return module.eval().requires_grad_(False)


@torch.no_grad()
def merge(checkpoint: Checkpoint, llm: LlamaForCausalLM, lora_alpha: float) -> None:
    """Puts the checkpoint into the LLM: W + (alpha / r) B A for each LoRA pair, embedding and lm_head replaced.

    The product is taken in float32 and rounded once to the LLM's dtype. The published run keeps LoRA unmerged under
    bf16 autocast, so in bf16 the two agree to rounding only.
    """
    hidden = llm.config.hidden_size
    base = llm.config.vocab_size
    rows = checkpoint.vocab
    if rows < base:
        raise DataError(f"model.checkpoint: {checkpoint.path} has {rows} token embeddings, the LLM alone has {base}")
    _check_shapes(checkpoint, {_EMBED: (rows, hidden), _HEAD: (rows, hidden)})
    for index, layer in enumerate(llm.model.layers):
        for target in _LORA_TARGETS:
            weight = layer.get_submodule(target).weight
            name_a, name_b = _lora_names(index, target)
            rank = checkpoint.state[name_a].shape[0]
            _check_shapes(checkpoint, {name_a: (rank, weight.shape[1]), name_b: (weight.shape[0], rank)})
            a, b = (checkpoint.state[name].to(weight.device, torch.float32) for name in (name_a, name_b))
            weight.copy_(weight.float().addmm_(b, a, alpha=lora_alpha / rank))
    dtype = llm.dtype
    llm.model.embed_tokens = nn.Embedding.from_pretrained(checkpoint.state[_EMBED].to(llm.device, dtype))
    llm.lm_head.weight = nn.Parameter(checkpoint.state[_HEAD].to(llm.device, dtype), requires_grad=False)
    llm.lm_head.out_features = rows
    llm.config.vocab_size = rows


def _check_shapes(checkpoint: Checkpoint, expected: dict[str, tuple[int, ...]]) -> None:
    wrong = [
        f"{name} is {tuple(checkpoint.state[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if tuple(checkpoint.state[name].shape) != shape
    ]
    if wrong:
        raise DataError(f"model.checkpoint: {checkpoint.path} does not fit the LLM: {'; '.join(wrong[:6])}")
