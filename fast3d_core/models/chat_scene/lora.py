"""LoRA as PEFT saves it: adapters under names of their own, and the base layers that they were trained on."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core.errors import DataError
from fast3d_core.files.checkpoints import renamed
from fast3d_core.files.files import load_json
from fast3d_core.text import shown

LLM = "llama_model.base_model.model."
"""What Chat-Scene puts before the LLM's own names; PEFT's part of it is `base_model.model.`."""

TARGETS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
"""The linear layers of a LLaMA layer that have a LoRA pair each."""

_PEFT = LLM.removeprefix("llama_model.")
_ADAPTER = re.compile(r"(.*\.)(?:(lora_[AB])(?:\.([^.]+))?|modules_to_save\.([^.]+))\.weight")
# Settings of an adapter under which its product is scaled or applied in another way than W + (alpha / r) B A.
_OTHERWISE = ("use_rslora", "use_dora", "fan_in_fan_out", "alpha_pattern")
_ROUNDING = 2.0**-8  # relative, of bfloat16; weights may have been saved in another float than model.llm's


def lora_names(layer: int, target: str) -> tuple[str, str]:
    """The names of a LoRA pair, A and B."""
    stem = f"{LLM}model.layers.{layer}.{target}"
    return f"{stem}.lora_A.default.weight", f"{stem}.lora_B.default.weight"


def with_default_adapter(state: Mapping[str, Tensor], where: str) -> Mapping[str, Tensor]:
    """The tensors under the names that Chat-Scene saves: the one adapter is `default`, the LLM is `llama_model`.

    Raises `DataError` where there are several adapters, none of them `default`.
    """
    matches = {name: match for name in state if (match := _ADAPTER.fullmatch(name))}
    adapters = {match[3] or match[4] or "" for match in matches.values()}
    if len(adapters) > 1 and "default" not in adapters:
        listed = ", ".join(sorted(adapter[:40] or "one without a name" for adapter in adapters)[:6])
        raise DataError(f"{where} holds several adapters ({listed}); save it again with one of them")
    chosen = "default" if "default" in adapters else "".join(adapters)
    alone = not any(name.startswith("llama_model.") for name in state)
    new = {}
    for name in state:
        match = matches.get(name)
        plain = name
        if match and (match[3] or match[4] or "") == chosen:
            plain = f"{match[1]}{match[2]}.default.weight" if match[2] else f"{match[1]}weight"
        new[name] = f"llama_model.{plain}" if alone and plain.startswith(_PEFT) else plain
    return renamed(state, new, where)


def adapter_settings(path: Path, what: str) -> dict[str, Any]:
    """What the adapter_config.json beside a PEFT adapter says, as Chat-Scene's settings would; else empty.

    Raises `DataError` where it says that the adapter is applied otherwise than as W + (alpha / r) B A.
    """
    beside = path.parent / "adapter_config.json"
    if not path.name.startswith("adapter_model.") or not beside.exists():
        return {}
    content = load_json(beside, what)
    settings = content if isinstance(content, dict) else {}
    if otherwise := [name for name in _OTHERWISE if settings.get(name)]:
        raise DataError(
            f"{what}: {beside} says {otherwise[0]} {shown(settings[otherwise[0]])}, which fast3d does not compute"
        )
    return {"lora": {"lora_alpha": settings["lora_alpha"]}} if "lora_alpha" in settings else {}


def base_layers(names: Mapping[str, Any], layers: int) -> dict[str, str]:
    """The LLM's own name -> the name in the checkpoint, of the weights that LoRA was trained on, where it holds any."""
    own = {"model.norm.weight"}
    for layer in range(layers):
        parts = (*TARGETS, "input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
        own |= {f"model.layers.{layer}.{part}.weight" for part in parts}
        own |= {f"model.layers.{layer}.self_attn.{part}_proj.bias" for part in "qkv"}
    originals = {"model.embed_tokens.weight", "lm_head.weight"}  # trained, so that the plain name is not the base's
    found = {}
    for name in names:
        if not name.startswith(LLM):
            continue
        plain = name.removeprefix(LLM)
        base = plain.replace(".base_layer.", ".").replace(".original_module.", ".")
        if base in own or (base in originals and base != plain):
            found[base] = name
    return found


def check_base(base: Mapping[str, Tensor], llm: Mapping[str, Tensor], where: str) -> None:
    """Raises `DataError` unless the base layers of a checkpoint are the LLM's, but for the rounding of 16-bit floats.

    Args:
        base, llm: by the LLM's own names.
    """
    for name, tensor in base.items():
        own = llm.get(name)
        same = (
            own is not None
            and own.shape == tensor.shape
            and torch.allclose(tensor.to(own.device, torch.float32), own.float(), rtol=_ROUNDING, atol=1e-7)
        )
        if not same:
            raise DataError(
                f"{where} was trained on another LLM than model.llm: it holds base layers, and {name} differs",
                "set model.llm to the weights that it was trained on",
            )
