"""An LLM's weights, read from a Hugging Face folder, and the parts of a layer that the reference engine, recording and
training need."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core.errors import DataError
from fast3d_core.files import pretrained
from fast3d_core.files.files import load_json, need
from fast3d_core.files.pretrained import open_tensors
from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.engine.operations import rotate
from fast3d_core.llm.families import FAMILIES, Llm, LlmConfig, llm_config
from fast3d_core.text import first_line, printable

# Others are quantised, and mean nothing alone.
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_ROPE_BUFFERS = ".rotary_emb.inv_freq"  # older files hold these, which follow from config.json


def read_shape(folder: Path, extra_tokens: int = 0) -> LlmShape:
    """The LLM's sizes from its config.json, without reading weights."""
    return shape_of(read_config(folder), extra_tokens)


def shape_of(config: LlmConfig, extra_tokens: int = 0) -> LlmShape:
    """The sizes that costs depend on."""
    return LlmShape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads or config.num_attention_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size + extra_tokens,
    )


def read_config(folder: Path) -> LlmConfig:
    """The LLM's config.json. Raises `DataError` where it is missing, damaged, or that of something else."""
    path = need(need(folder, "model.llm") / "config.json", "model.llm")
    return llm_config(load_json(path, "model.llm"), path)


def load_llm(folder: Path, dtype: torch.dtype, device: torch.device | None = None) -> Llm:
    """The LLM, in evaluation mode, every tensor read from the folder (safetensors or .bin shards), straight to `device`
    (the CPU by default).

    Raises:
        DataError: the folder is incomplete, its config.json is that of no LLM that runs here, or its tensors are not
            those that config.json describes.
    """
    device = device or torch.device("cpu")
    tensors = open_weights(folder)
    config = read_config(folder)
    with torch.device("meta"):
        llm = FAMILIES[config.model_type].model(config)  # type: ignore[arg-type]
    llm.model.rotary_emb = type(llm.model.rotary_emb)(config).to(device)  # no file has it
    # A copy on a CPU, too: what is mapped would change with the file.
    state = {name: tensor.to(device, dtype, copy=True) for name, tensor in tensors.items()}
    llm.load_state_dict(state, strict=False, assign=True)  # `open_weights` made sure that nothing is missing
    llm.tie_weights()
    return llm.eval().requires_grad_(False)


def weight_files(folder: Path) -> list[Path]:
    """The files that `load_llm` reads the weights from. Raises `DataError` where there are none, or one is missing."""
    return pretrained.weight_files(folder, "model.llm")


def open_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors that `load_llm` would read, mapped into memory: of their numbers only those are read that are used.

    Raises:
        DataError: as `load_llm`, without reading the numbers.
    """
    tensors = open_tensors(weight_files(folder), "model.llm")
    config = read_config(folder)
    family = FAMILIES[config.model_type]
    try:
        with torch.device("meta"):
            llm = family.model(config)  # type: ignore[arg-type]
    except Exception as error:  # what does not fit together, or shapes that are beyond torch
        raise DataError(f"model.llm: {folder}: config.json describes no {family.title} ({first_line(error)})") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in llm.state_dict().items()}
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    if wrong := [name for name, size in wanted.items() if name not in tensors or tuple(tensors[name].shape) != size]:
        raise DataError(f"model.llm: {folder} lacks tensors or has them in another shape: {_listing(wrong)}")
    if strange := [name for name in wanted if tensors[name].dtype not in _DTYPES]:
        raise DataError(f"model.llm: {folder} holds {strange[0]} as {tensors[strange[0]].dtype}; is it quantised?")
    if more := [name for name in tensors if name not in wanted and _is_computed(name)]:
        raise DataError(
            f"model.llm: {folder} holds tensors that config.json's {family.title} has not: {_listing(more)}; "
            "are both from the same LLM?"
        )
    return {name: tensors[name] for name in wanted}


def _listing(names: Collection[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(printable(name[:100]) for name in list(names)[:5]) + more


def _is_computed(name: str) -> bool:
    """Whether a tensor of this name takes part in what a layer computes, so that the LLM is another one without it."""
    return (name.startswith("model.layers.") or name.endswith(".bias")) and not name.endswith(_ROPE_BUFFERS)


def project(layer: Any, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a decoder layer, biases, head norms and positions already in them.

    Args:
        layer: a decoder layer of transformers, of any family.
        x: (..., hidden) input of the layer; cos, sin: (..., head_dim) rope cos and sin of the rows' positions.

    Returns:
        q (..., heads, head_dim), k and v (..., kv heads, head_dim).
    """
    attention = layer.self_attn
    normed = layer.input_layernorm(x)
    q, k, v = (
        projection(normed).unflatten(-1, (-1, attention.head_dim))
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    if hasattr(attention, "q_norm"):
        q, k = attention.q_norm(q), attention.k_norm(k)
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def finish_layer(layer: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a decoder layer: output projection, residual, MLP.

    Args:
        x: (..., hidden) input of the layer; attended: (..., heads, head_dim) what attention gathered.
    """
    x = x + layer.self_attn.o_proj(attended.flatten(-2))
    return x + layer.mlp(layer.post_attention_layernorm(x))
