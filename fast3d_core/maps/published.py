"""Attention map files, in the published form: `infer_attn_maps_{split}_{dataset}.pt`."""

import io
from pathlib import Path

import torch
from torch import Tensor

from fast3d_core.errors import DataError
from fast3d_core.files.files import load_torch
from fast3d_core.maps.kind import AttentionMaps, kind_of
from fast3d_core.text import shown

MAP_KEYS = ("a_map", "a_map_ori")


def map_file(folder: Path, dataset: str, split: str = "val") -> Path:
    """Where a dataset's maps are."""
    return folder / f"infer_attn_maps_{split}_{dataset}.pt"


def read_maps(
    folder: Path,
    dataset: str,
    samples: int | None = None,
    *,
    key: str = "a_map",
    objects: int = 100,
    split: str = "val",
    what: str = "--maps",
) -> AttentionMaps:
    """The maps of a dataset.

    Extraction writes a list of {"index", "a_map", "a_map_ori"}, in any order; GAP writes {index: {"a_map"}}. Both are
    read by index, and show their kind, but for a dict of what looks like shares. `samples` is the number of samples in
    the annotations; None takes as many as the file numbers.
    `what` is what errors call the file.

    Raises:
        DataError: the file is missing or damaged, made for another dataset, lacks samples, or a map has the wrong
            length or is not finite.
    """
    path = map_file(folder, dataset, split)
    content = load_torch(path, what)
    remedy = f"{'extract' if isinstance(content, list) else 'predict'} them again"
    maps: dict[int, Tensor] = {}
    entries = content.items() if isinstance(content, dict) else _listed(content, path)
    for index, entry in entries:
        if type(index) is not int or not isinstance(entry, dict):
            raise DataError(
                f"{path} is not an attention map file: entry {shown(index)} should be {{'a_map': ...}} by index"
            )
        if key not in entry:
            there = ", ".join(str(name) for name in MAP_KEYS if name in entry)
            raise DataError(f"{path} holds no {key!r} (it has {there or 'none'}); choose with --map-key")
        maps[index] = _checked(entry[key], index, objects, path, remedy)
    if not maps:
        raise DataError(f"{path} holds no samples; {remedy}")
    found = AttentionMaps(path, kind_of(maps, listed=isinstance(content, list)), maps)
    if samples is None:
        if gaps := [i for i in range(len(maps)) if i not in maps]:
            raise DataError(f"{path} lacks sample {gaps[0]}; {remedy}")
        return found
    extra = [i for i in maps if not 0 <= i < samples]
    if extra:
        raise DataError(f"{path} is for another dataset: it has sample {max(extra)}, {dataset} has {samples} samples")
    missing = [i for i in range(samples) if i not in maps]
    if missing:
        raise DataError(f"{path} lacks {len(missing)} of {samples} samples, sample {missing[0]} first; {remedy}")
    return found


def extracted_content(maps: dict[str, Tensor]) -> bytes:
    """A file of extracted maps in the published form, a list of {"index", "a_map", "a_map_ori"} in index order.

    Args:
        maps: key -> (samples, objects), row i that of sample i.
    """
    rows = zip(*maps.values(), strict=True)
    return _content([{"index": index, **dict(zip(maps, row, strict=True))} for index, row in enumerate(rows)])


def predicted_content(logits: Tensor) -> bytes:
    """A file of logits (samples, objects) in the published form, {index: {"a_map": (objects,)}}."""
    return _content({index: {"a_map": row} for index, row in enumerate(logits)})


def _content(maps: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(maps, buffer)
    return buffer.getvalue()


def _listed(content: object, path: Path) -> list[tuple[object, object]]:
    if not isinstance(content, list) or not all(isinstance(entry, dict) and "index" in entry for entry in content):
        raise DataError(
            f"{path} is not an attention map file: expected a dict by index or a list of entries with 'index'"
        )
    return [(entry["index"], entry) for entry in content]


def _checked(value: object, index: int, objects: int, path: Path, remedy: str) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != objects:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise DataError(
            f"{path}: the map of sample {index} should hold {objects} numbers, one an object, not {found}; "
            "is data.max_objects that of the maps?"
        )
    scores = value.detach().reshape(objects).to(torch.float32)
    if not torch.isfinite(scores).all():
        raise DataError(f"{path}: the map of sample {index} holds NaN or infinity; {remedy}")
    return scores
