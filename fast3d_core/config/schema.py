"""The schema of the config file: dataclasses whose fields are its keys, see `fast3d_core.fields.setting`."""

# ruff: noqa: RUF009 (`setting` is `dataclasses.field` with names for its metadata)

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fast3d_core.fields import setting
from fast3d_core.llm.generation import GenerationConfig
from fast3d_core.registry import BENCHMARKS, PUBLISHED

DATASETS = PUBLISHED
"""The five published benchmarks, in the order they are run and reported; there may be more to name."""


@dataclass(frozen=True)
class ModelConfig:
    """the scene model: an LLM and the Chat-Scene checkpoint on top of it"""

    kind: str = setting(
        "chat-scene",
        "scene model: chat-scene, or one that an installed package adds",
        form=(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "a name, such as chat-scene"),
    )
    llm: Path = setting(Path("llm/vicuna-7b-v1.5"), "folder of the LLaMA weights and tokenizer (Hugging Face layout)")
    checkpoint: Path = setting(
        Path("ckpt_01_3446.pth"), "Chat-Scene checkpoint as released: LoRA, projectors, embeddings"
    )
    lora_alpha: float = setting(
        16, "LoRA scale is lora_alpha / rank; the checkpoint does not tell", above=0, at_most=10_000
    )
    dtype: Literal["float32", "bfloat16", "float16"] = setting("bfloat16", "number type of weights and activations")
    device: str = setting(
        "auto",
        "auto (CUDA if present), cpu, cuda or cuda:N",
        form=(r"auto|cpu|cuda(:[0-9]{1,3})?", "auto, cpu, cuda or cuda:N"),
    )
    allow_unexpected: bool = setting(False, "load a checkpoint that holds tensors of unknown name")


@dataclass(frozen=True)
class DataConfig:
    """the benchmarks"""

    annotations: Path = setting(Path("annotations"), "folder of the released annotation and feature files")
    datasets: tuple[str, ...] = setting(DATASETS, "benchmarks to run, in this order", choices=BENCHMARKS.names)
    max_objects: int = setting(100, "object slots per scene, three visual tokens each", at_least=1, at_most=1000)


@dataclass(frozen=True)
class MapsConfig:
    """attention maps over the objects, one file per dataset"""

    predicted: Path = setting(Path("outputs/pred_attn_maps"), "folder of the maps that GAP predicted", written=True)
    targets: Path = setting(
        Path("outputs/infer_attn_maps"), "folder of the maps extracted from the LLM, GAP's targets", written=True
    )


@dataclass(frozen=True)
class GapConfig:
    """the network that predicts attention maps"""

    text_encoder: Path | str = setting("FacebookAI/roberta-base", "folder, or else a Hugging Face model name")
    checkpoint: Path = setting(
        Path("outputs/gap/checkpoint_best.safetensors"), "GAP weights (.safetensors, or .pth)", written=True
    )
    heads: int = setting(
        12, "attention heads of a new network, and where a checkpoint does not tell", at_least=1, at_most=256
    )
    layers: int = setting(4, "decoder layers of a new network", at_least=1, at_most=100)


@dataclass(frozen=True)
class EvalConfig:
    """the evaluation run"""

    batch_size: int | Literal["auto"] = setting(
        32, "samples per batch, or auto: as many as the memory holds", at_least=1, at_most=4096
    )
    engine: Literal["fast", "reference"] = setting("fast", "fast drops tokens, reference masks them as published")
    reuse_scene: bool = setting(False, "fast engine: read a scene once for all questions about it; not as published")


@dataclass(frozen=True)
class Config:
    """All settings of a command. Two configs are equal when their settings are, wherever these came from.

    `source` is the absolute path of the file, `embedded` whether it came with the program, whose folder is no place for
    results, and `origins` names the file or `--set` for each key that was set.
    """

    source: Path = field(compare=False)
    embedded: bool = field(compare=False)
    origins: Mapping[str, str] = field(compare=False, repr=False)
    model: ModelConfig
    data: DataConfig
    maps: MapsConfig
    gap: GapConfig
    generation: GenerationConfig
    eval: EvalConfig
    runs: Path = setting(Path("runs"), "folder of the results, one folder per run", written=True)


def fields_of(cls: type) -> list["dataclasses.Field[Any]"]:
    """The fields of `cls` that are keys or sections."""
    return [f for f in dataclasses.fields(cls) if dataclasses.is_dataclass(f.type) or "doc" in f.metadata]


def keys_of(cls: type, prefix: str = "") -> Iterator[tuple[str, "dataclasses.Field[Any]"]]:
    """Every key under `cls` with its full dotted name."""
    for f in fields_of(cls):
        if dataclasses.is_dataclass(f.type):
            yield from keys_of(typing.cast(type, f.type), f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f


def build(cls: type, settings: Mapping[str, Any], prefix: str = "", **extra: Any) -> Any:
    """`cls` from the flat `settings`; `extra` fills the fields that are no keys."""
    for f in fields_of(cls):
        if dataclasses.is_dataclass(f.type):
            extra[f.name] = build(typing.cast(type, f.type), settings, f"{prefix}{f.name}.")
        else:
            extra[f.name] = settings[prefix + f.name]
    return cls(**extra)
