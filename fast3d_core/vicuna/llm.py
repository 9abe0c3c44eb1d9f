"""The LLaMA weights, read from a Hugging Face folder, and the parts of a layer that every engine needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from fast3d_core.data import pretrained
from fast3d_core.data.files import first_line, load_json, need
from fast3d_core.data.pretrained import network_settings, open_tensors
from fast3d_core.errors import DataError
from fast3d_core.plan import LlmShape
from fast3d_core.vicuna.operations import rotate

# What config.json says about a LLaMA beside what it says about any network.
_NETWORK = (
    *("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters"),
    *("attention_bias", "mlp_bias", "attention_dropout", "pretraining_tp", "tie_word_embeddings"),
)


@dataclass(frozen=True)
class Prompt:
    """What the LLM reads.

    Attributes:
        embeds: (tokens, hidden).
        visual_start: index of the first visual token; visual: how many there are, in one run.
        prefix: what stands before the question, (fewer tokens, hidden): the very same tensor for all prompts about a
            scene, by which its keys and values are found again where scenes are reused.
    """

    embeds: Tensor
    visual_start: int
    visual: int
    prefix: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeds)

    @property
    def shared(self) -> int:
        """How many of the tokens, from the first, are the same for all prompts about the scene."""
        return 0 if self.prefix is None else len(self.prefix)


@dataclass(frozen=True)
class Generation:
    """What the LLM answers to one prompt.

    Attributes:
        ids: token ids, BOS in front, EOS at the end if the answer was closed.
        score: summed log-probability over length (`generation.length_penalty`); None for greedy search.
        steps: tokens generated until this sample was done, the last one included.
        kept: (count,) offsets of the visual tokens that layers >= K saw at prefill.
        kept_per_step: the reference engine's set at prefill and at each decoding step (FastV picks anew), else empty.
    """

    ids: list[int]
    score: float | None
    steps: int
    kept: Tensor
    kept_per_step: tuple[Tensor, ...] = ()


def read_shape(folder: Path, extra_tokens: int = 0) -> LlmShape:
    """The LLM's sizes from its config.json, without reading weights."""
    return shape_of(read_config(folder), extra_tokens)


def shape_of(config: LlamaConfig, extra_tokens: int = 0) -> LlmShape:
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


def read_config(folder: Path) -> LlamaConfig:
    """The LLM's config.json. Raises `DataError` where it is missing, damaged, or that of something else."""
    path = need(need(folder, "model.llm") / "config.json", "model.llm")
    content = load_json(path, "model.llm")
    if not isinstance(content, dict) or content.get("model_type") != "llama":
        raise DataError(f"model.llm: {path} does not describe a LLaMA (model_type 'llama')")
    try:
        return LlamaConfig(**network_settings(content, _NETWORK, path, "model.llm"))
    except DataError:
        raise
    except Exception as error:  # transformers raises what its validators raise
        raise DataError(f"model.llm: {path} is not a usable LLaMA config ({first_line(error)})") from None


def load_llm(folder: Path, dtype: torch.dtype) -> LlamaForCausalLM:
    """The LLM on the CPU, in evaluation mode, every tensor read from the folder (safetensors or .bin shards).

    Raises:
        DataError: the folder is incomplete; transformers alone would fill missing tensors with random numbers.
    """
    config = read_config(folder)
    open_weights(folder)  # transformers makes room for whatever config.json claims
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        loaded: Any = LlamaForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
        )
        llm, info = loaded
    except Exception as error:  # damaged shards raise whatever their format's reader raises
        raise DataError(f"model.llm: the weights in {folder} cannot be read ({first_line(error)})") from None
    finally:
        transformers_logging.set_verbosity(verbosity)
    _refuse(folder, sorted(info["missing_keys"]) + [str(key) for key in info.get("mismatched_keys", [])])
    return llm.eval().requires_grad_(False)


def _refuse(folder: Path, wrong: list[str]) -> None:
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise DataError(f"model.llm: {folder} lacks tensors or has them in another shape: {shown}")


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
    try:
        with torch.device("meta"):
            wanted = {name: tuple(tensor.shape) for name, tensor in LlamaForCausalLM(config).state_dict().items()}
    except Exception as error:  # what does not fit together, or shapes that are beyond torch
        raise DataError(f"model.llm: {folder}: config.json describes no LLaMA ({first_line(error)})") from None
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    _refuse(
        folder, [name for name, size in wanted.items() if name not in tensors or tuple(tensors[name].shape) != size]
    )
    if strange := [name for name in wanted if not tensors[name].is_floating_point()]:
        raise DataError(f"model.llm: {folder} holds {strange[0]} as {tensors[strange[0]].dtype}; is it quantised?")
    return {name: tensors[name] for name in wanted}


def project(layer: Any, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of a decoder layer, positions already rotated in.

    Args:
        layer: a `LlamaDecoderLayer` of transformers.
        x: (..., hidden) input of the layer; cos, sin: (..., head_dim) rotary tables of the rows' positions.

    Returns:
        q (..., heads, head_dim), k and v (..., kv heads, head_dim).
    """
    attention = layer.self_attn
    normed = layer.input_layernorm(x)
    q, k, v = (
        projection(normed).unflatten(-1, (-1, attention.head_dim))
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def finish_layer(layer: Any, x: Tensor, attended: Tensor) -> Tensor:
    """The rest of a decoder layer: output projection, residual, MLP.

    Args:
        x: (..., hidden) input of the layer; attended: (..., heads, head_dim) what attention gathered.
    """
    x = x + layer.self_attn.o_proj(attended.flatten(-2))
    return x + layer.mlp(layer.post_attention_layernorm(x))
