"""Which LLMs run: what a config.json says about one, read as a stranger's, and what its layers are made of.

A family is what transformers calls a `model_type`. All of them are decoders of pre-norm layers with rotary positions, a
gated MLP with silu, and attention whose queries may share keys (GQA); they differ in what `Family` says. The reference
engine takes the layers of transformers, the fast engine their weights (`engine.layers.fuse`).

A sliding window is computed exactly as long as nobody looks beyond it: prompts whose answers might are refused
(`check_window`), where their lengths are known, before anything is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fast3d_core.errors import DataError
from fast3d_core.files.pretrained import network_settings
from fast3d_core.text import first_line, shown

LlmConfig = LlamaConfig | MistralConfig | Qwen2Config | Qwen3Config
Llm = LlamaForCausalLM | MistralForCausalLM | Qwen2ForCausalLM | Qwen3ForCausalLM

# What config.json says about any of them, beside what it says about any network.
_SETTINGS = (
    *("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters"),
    *("attention_dropout", "tie_word_embeddings"),
)
_WINDOWS = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
# Ropes whose cos and sin depend on the position alone. Those of "dynamic" and "longrope" depend on the length of the
# text, too, so that cached keys would have been rotated by other angles than the queries that meet them.
_ROPES = ("default", "linear", "llama3", "yarn")
_LARGEST_WINDOW = 10**7  # tokens; no released LLM reads as many


@dataclass(frozen=True)
class Family:
    """What the LLMs of a `model_type` have in common.

    Attributes:
        title: what users know them as.
        config, model: the classes of transformers.
        qkv_bias: whether queries, keys and values have biases (no other product has).
        head_norms: whether each head's queries and keys are normalised before positions are rotated in.
        settings: what config.json says about them alone.
    """

    title: str
    config: type[LlmConfig]
    model: type[Llm]
    qkv_bias: bool = False
    head_norms: bool = False
    settings: tuple[str, ...] = ()


FAMILIES = {
    "llama": Family(
        "LLaMA", LlamaConfig, LlamaForCausalLM, settings=("attention_bias", "mlp_bias", "pretraining_tp")
    ),
    "mistral": Family("Mistral", MistralConfig, MistralForCausalLM, settings=("sliding_window",)),
    "qwen2": Family("Qwen2", Qwen2Config, Qwen2ForCausalLM, qkv_bias=True, settings=_WINDOWS),
    "qwen3": Family(
        "Qwen3", Qwen3Config, Qwen3ForCausalLM, head_norms=True, settings=("attention_bias", *_WINDOWS)
    ),
}  # fmt: skip
"""By model_type."""


def family_of(config: LlmConfig) -> Family:
    """The family of an LLM that was read here, or made by transformers.

    Raises `DataError` for others, and for layers that theirs never have: biases beyond `qkv_bias`, another activation.
    """
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise DataError(f"model.llm: {_unknown(config.model_type)}")
    if config.hidden_act != "silu" or getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        raise DataError(
            f"model.llm: a {family.title} with attention_bias, mlp_bias, or another hidden_act than silu, as none of "
            "the released ones is, is not supported"
        )
    return family


def _unknown(model_type: Any) -> str:
    return f"its model_type is {shown(model_type)}, an LLM that fast3d does not run; it runs {', '.join(FAMILIES)}"


def llm_config(content: Any, path: Path) -> LlmConfig:
    """The config of transformers for the content of a config.json; what it may say beyond the network is left out.

    Raises `DataError` where it is that of another network, or asks for what is not computed here as it is meant.
    """
    if not isinstance(content, dict):
        raise DataError(f"model.llm: {path} does not describe an LLM")
    model_type = content.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        raise DataError(f"model.llm: {path} does not describe an LLM of a family that is known here: "
                        f"{_unknown(model_type)}")  # fmt: skip
    try:
        settings = network_settings(content, (*_SETTINGS, *family.settings), path, "model.llm")
        _check_ropes(content, path)
        _check_windows(settings, path)
        config = family.config(**settings)
    except DataError:
        raise
    except Exception as error:  # transformers raises what its validators raise
        raise DataError(f"model.llm: {path} is not a usable {family.title} config ({first_line(error)})") from None
    family_of(config)
    return config


def _check_ropes(content: Mapping[str, Any], path: Path) -> None:
    """Raises `DataError` where config.json asks for rotary positions that are not computed here as they are meant."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = content.get(key)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise DataError(f"model.llm: {path}: {key} is {shown(rope)}, not a mapping")
        for name, value in rope.items():
            if name in ("rope_type", "type"):  # the second is how it was called before
                if value not in _ROPES:
                    raise DataError(
                        f"model.llm: {path}: {key}.{name} is {shown(value)}, which fast3d does not compute; it knows "
                        f"{', '.join(_ROPES)}"
                    )
            elif not (value is None or isinstance(value, (int, float))):  # a mapping would be passed over
                raise DataError(f"model.llm: {path}: {key}.{str(name)[:60]} is {shown(value)}, not a number")
        if rope.get("partial_rotary_factor", 1) != 1:
            raise DataError(f"model.llm: {path}: {key}.partial_rotary_factor is not 1, which fast3d does not compute")


def _check_windows(settings: Mapping[str, Any], path: Path) -> None:
    """Raises `DataError` where config.json names windows that transformers would misread, or of other layers."""
    window = settings.get("sliding_window")
    if window is not None and (type(window) is not int or not 1 <= window <= _LARGEST_WINDOW):
        raise DataError(
            f"model.llm: {path}: sliding_window is {shown(window)}, not a number of tokens from 1 to {_LARGEST_WINDOW}"
        )
    kinds = settings.get("layer_types")
    known = ("full_attention", "sliding_attention")
    if kinds is not None and not (isinstance(kinds, list) and all(kind in known for kind in kinds)):
        raise DataError(f"model.llm: {path}: layer_types has other layers than {' and '.join(known)}")


def window_of(config: LlmConfig) -> int | None:
    """How many tokens, its own included, a token of the layers with a sliding window attends to; None without any."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None)


def check_window(config: LlmConfig, prompt_tokens: int, new_tokens: int = 1) -> None:
    """Raises `DataError` where a token would look beyond the LLM's sliding window, which is not computed here.

    Args:
        prompt_tokens: of the longest prompt, nothing pruned: kept tokens keep their positions.
        new_tokens: at most how many are generated; the last one is never read.
    """
    window = window_of(config)
    tokens = prompt_tokens + max(new_tokens - 1, 0)
    if window is not None and tokens > window:
        raise DataError(
            f"model.llm: the LLM attends to the last {window} tokens alone (sliding_window), which is computed here "
            f"only where there are no more; prompt and answer take up to {tokens}",
            "lower generation.max_new_tokens, or take an LLM without a window",
        )
