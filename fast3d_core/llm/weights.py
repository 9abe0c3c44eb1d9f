"""The LLaMA weights, read from a Hugging Face folder, and the parts of a layer that every engine needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from fast3d_core.config import GenerationConfig
from fast3d_core.errors import DataError, NotFiniteError, UsageError
from fast3d_core.files import pretrained
from fast3d_core.files.files import first_line, load_json, need, shown
from fast3d_core.files.pretrained import network_settings, open_tensors
from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.engine.operations import rotate

# What config.json says about a LLaMA beside what it says about any network.
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # others are quantised, and mean nothing alone
_NETWORK = (
    *("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters"),
    *("attention_bias", "mlp_bias", "attention_dropout", "pretraining_tp", "tie_word_embeddings"),
)
# Rotary tables that depend on the position alone. Those of "dynamic" and "longrope" depend on the length of the text,
# too, so that cached keys would have been rotated by other tables than the queries that meet them.
_ROPES = ("default", "linear", "llama3", "yarn")


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
        visual: how many visual tokens the prompt had.
        stages: of each stage of the plan its layer and which visual tokens it kept at prefill, (count,) int64 offsets.
        kept_per_step: the tokens that the last layer saw at prefill and at each decoding step, where the reference
            engine answered (`Stage.every_step` selects again), else empty.
    """

    ids: list[int]
    score: float | None
    steps: int
    visual: int
    stages: tuple[tuple[int, Tensor], ...] = ()
    kept_per_step: tuple[Tensor, ...] = ()

    @property
    def kept(self) -> Tensor:
        """Offsets of the visual tokens that the last layer saw at prefill."""
        return self.stages[-1][1] if self.stages else torch.arange(self.visual)


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
        settings = network_settings(content, _NETWORK, path, "model.llm")
        _check_ropes(settings, path)
        return LlamaConfig(**settings)
    except DataError:
        raise
    except Exception as error:  # transformers raises what its validators raise
        raise DataError(f"model.llm: {path} is not a usable LLaMA config ({first_line(error)})") from None


def _check_ropes(settings: dict[str, Any], path: Path) -> None:
    """Raises `DataError` where config.json asks for rotary positions that are not computed here as they are meant."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = settings.get(key)
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


def check_beams(settings: GenerationConfig, vocab: int) -> None:
    """Raises `UsageError` where beam search would need more candidates than the vocabulary has tokens."""
    if settings.beams > 1 and 2 * settings.beams > vocab:
        raise UsageError(
            f"generation.beams is {settings.beams}, but a step takes the best 2 x beams of the LLM's {vocab} tokens; "
            f"take at most {vocab // 2}"
        )


def not_finite(dtype: torch.dtype) -> NotFiniteError:
    """The error for logits that are NaN or infinite."""
    name = str(dtype).removeprefix("torch.")
    files = "`fast3d doctor --deep` looks for such numbers in the files"
    advice = files if dtype == torch.float32 else f"try --set model.dtype=bfloat16 or float32, else {files}"
    return NotFiniteError(f"the LLM computes NaN or infinity in {name}; {advice}")


def load_llm(folder: Path, dtype: torch.dtype, device: torch.device | None = None) -> LlamaForCausalLM:
    """The LLM, in evaluation mode, every tensor read from the folder (safetensors or .bin shards), straight to `device`
    (the CPU by default).

    Raises:
        DataError: the folder is incomplete, or a tensor has another shape than its config.json says.
    """
    device = device or torch.device("cpu")
    tensors = open_weights(folder)
    config = read_config(folder)
    with torch.device("meta"):
        llm = LlamaForCausalLM(config)
    llm.model.rotary_emb = type(llm.model.rotary_emb)(config).to(device)  # is in no file
    # A copy on a CPU, too: what is mapped would change with the file.
    state = {name: tensor.to(device, dtype, copy=True) for name, tensor in tensors.items()}
    llm.load_state_dict(state, strict=False, assign=True)  # `open_weights` made sure that nothing is missing
    llm.tie_weights()
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
    if strange := [name for name in wanted if tensors[name].dtype not in _DTYPES]:
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
