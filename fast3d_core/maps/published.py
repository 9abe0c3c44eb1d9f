"""Attention map files, in the published form: `infer_attn_maps_{split}_{dataset}.pt`."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from fast3d_core.errors import DataError
from fast3d_core.files.files import load_torch, shown

MAP_KEYS = ("a_map", "a_map_ori")

MapKind = Literal["logits", "shares"]
"""Scores before a softmax, as GAP predicts them, or shares of attention, as extraction records them."""

MAP_KINDS: tuple[MapKind, ...] = get_args(MapKind)

_LARGEST_SUM = 1.05  # of shares: the rest falls on other tokens; half precision may round it up


@dataclass(frozen=True)
class AttentionMaps:
    """The maps of a dataset.

    Attributes:
        path: their file.
        kind: what their numbers are; None where the file might hold either.
        scores: sample index -> (objects,) float32. Higher is more, of either kind: enough for methods that rank.
        recorded: whether fast3d wrote the file and noted its kind, so that nothing else can be true.
    """

    path: Path
    kind: MapKind | None
    scores: dict[int, Tensor]
    recorded: bool = False

    def logits(self, kind: MapKind | None = None) -> dict[int, Tensor]:
        """The maps as logits, for methods that take a softmax; shares by `log_shares`.

        Args:
            kind: what a user says that they are; None: nothing was said, so that they have to be known as logits.

        Raises:
            DataError: they are, or may be, shares, and nothing was said; or what was said is wrong.
        """
        if self.recorded and kind not in (None, self.kind):
            raise DataError(
                f"{self.path} holds {self.kind}, as fast3d noted when it wrote it: leave out --map-kind {kind}"
            )
        if kind is None and self.kind == "shares":
            raise DataError(
                f"{self.path} holds shares of attention, and sap takes the softmax of logits: give --map-kind shares "
                "to take their logarithm, or predicted maps with --maps"
            )
        if kind is None and self.kind is None:
            raise DataError(
                f"{self.path} is in the form of logits, but its maps look like shares of attention (none below 0, sums "
                "of at most 1); say which they are with --map-kind shares or --map-kind logits"
            )
        if kind != "shares":
            return self.scores
        for index, scores in self.scores.items():
            if (scores < 0).any() or scores.sum() <= 0:
                problem = "has numbers below 0" if (scores < 0).any() else "adds up to 0"
                raise DataError(f"{self.path}: the map of sample {index} {problem}, so it holds no shares of attention")
        return {index: log_shares(scores) for index, scores in self.scores.items()}


def log_shares(shares: Tensor) -> Tensor:
    """Logits whose softmax are these shares of attention (..., objects), each as a part of their sum.

    A share of 0 is given the smallest normal float32, a logit of -87.3: it is finite, and adds nothing to any sum.
    """
    parts = shares.double() / shares.double().sum(dim=-1, keepdim=True)
    return parts.float().clamp(min=torch.finfo(torch.float32).tiny).log()


def _kind(maps: dict[int, Tensor], listed: bool) -> MapKind | None:
    """What a file holds, by its form, and where its numbers contradict that, by these."""
    scores = torch.stack(list(maps.values()))
    if (scores < 0).any():
        return "logits"
    sums = scores.sum(dim=-1)
    if listed:
        return "shares"
    return None if ((sums > 0) & (sums <= _LARGEST_SUM)).all() else "logits"


def map_file(folder: Path, dataset: str, split: str = "val") -> Path:
    """Where a dataset's maps are."""
    return folder / f"infer_attn_maps_{split}_{dataset}.pt"


def load_maps(
    folder: Path,
    dataset: str,
    samples: int | None = None,
    *,
    key: str = "a_map",
    objects: int = 100,
    split: str = "val",
    what: str = "--maps",
) -> dict[int, Tensor]:
    """`read_maps`, of whatever kind: sample index -> (objects,) float32."""
    return read_maps(folder, dataset, samples, key=key, objects=objects, split=split, what=what).scores


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
    read by index, and tell the kind, but for a dict of what looks like shares. `samples` is the number of samples in
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
    found = AttentionMaps(path, _kind(maps, isinstance(content, list)), maps)
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
