"""Extracted maps as GAP's targets, what it learns and is compared with: from our store, or from published files."""

import re
from pathlib import Path

from torch import Tensor

from fast3d_core.benchmarks.questions import annotation_file
from fast3d_core.config import Config, need_path
from fast3d_core.errors import DataError, UsageError
from fast3d_core.maps.origin import load_known_maps
from fast3d_core.maps.published import map_file
from fast3d_core.maps.store import STORE_FILE, TargetStore


def has_targets(folder: Path, split: str, dataset: str) -> bool:
    """Whether `load_targets` would find maps of that dataset."""
    stored = (folder / STORE_FILE).exists() and TargetStore.open(folder).has(split, dataset)
    return stored or map_file(folder, dataset, split).exists()


def load_targets(
    config: Config,
    folder: Path,
    split: str,
    dataset: str,
    samples: int,
    *,
    key: str = "a_map",
    layers: str = "all",
) -> Tensor:
    """Extracted maps (samples, objects) float32, from our store or from published `.pt` files in `folder`.

    Args:
        samples: how many the annotations hold; layers: which layers to average, see `parse_layers`.

    Raises:
        DataError: maps are missing, damaged, made with other annotations or another `data.max_objects`, not finite, or
            add up to nothing.
        UsageError: `layers` asks for single layers, and there is no store.
    """
    annotations = annotation_file(need_path(config, "data.annotations"), dataset, split)
    store = TargetStore.open(folder) if (folder / STORE_FILE).exists() else None
    if store and store.has(split, dataset):
        if store.objects != config.data.max_objects:
            raise DataError(
                f"{folder} holds maps of {store.objects} objects, data.max_objects is {config.data.max_objects}",
                f"set data.max_objects to {store.objects}, or extract into another folder",
            )
        chosen = parse_layers(layers, store.layers)
        maps = store.read(split, dataset, annotations=annotations, samples=samples, key=key, layers=chosen)
    else:
        if not map_file(folder, dataset, split).exists():
            raise DataError(
                f"{folder} has no maps of {split}/{dataset}; record them with `fast3d extract --split {split} "
                f"--dataset {dataset}`, or name their folder with --targets"
            )
        if layers != "all":
            raise UsageError(f"--layers {layers} needs the maps of single layers: run `fast3d extract --split {split}`")
        objects = config.data.max_objects
        loaded, _ = load_known_maps(
            folder, dataset, annotations, samples, key=key, objects=objects, split=split, what="--targets"
        )
        maps = loaded.all().scores
    for wrong, what in (
        (~maps.isfinite().all(-1), "holds NaN or infinity"),
        ((maps < 0).any(-1), "has numbers below 0"),
        (maps.sum(-1) <= 0, "adds up to 0"),
    ):
        if wrong.any():
            sample = int(wrong.nonzero()[0])
            raise DataError(
                f"{folder}: {split} {dataset}: the map of sample {sample} {what}, so it is no attention; "
                "extract it again"
            )
    return maps


def parse_layers(text: str, layers: int) -> list[int] | None:
    """The layers that `--layers` names, of an LLM with `layers` of them: `all`, `from:N`, or a list as `3,5,8-11`.

    Returns:
        None for all, else the layers counted from 0, ascending, each once.

    Raises:
        UsageError: it is none of these, or names a layer that does not exist.
    """
    if text == "all":
        return None
    chosen: set[int] = set()
    for item in [f"{text[5:]}-{layers - 1}"] if text.startswith("from:") else text.split(","):
        ends = re.fullmatch(r"\s*([0-9]{1,6})\s*(?:-\s*([0-9]{1,6})\s*)?", item)
        if not ends:
            raise UsageError(f"--layers is all, from:N, or a list such as 3,5,8-11, not {text[:80]!r}")
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if not first <= last < layers:
            raise UsageError(f"--layers {text[:80]}: the LLM has layers 0 to {layers - 1}, and ranges ascend")
        chosen.update(range(first, last + 1))
    return sorted(chosen)
