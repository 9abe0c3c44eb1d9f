"""`fast3d convert`: the released files as safetensors, of the same numbers.

The features become packed files beside the released ones, and are read in their place; a checkpoint becomes a file of
the same name that ends in .safetensors, for the config to name. The files converted are left as they are.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from fast3d_core.config import Config, need_checkpoint, need_path
from fast3d_core.data.features import FEATURES_2D, FEATURES_3D, ReleasedFeatures, packed_file
from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.disk import need_space
from fast3d_core.files.files import need_file, parse_json
from fast3d_core.files.tensors import Original, TensorFile, write_tensors
from fast3d_core.gap.checkpoint import read_tensors
from fast3d_core.models.chat_scene.checkpoint import read_checkpoint

FEATURES, CHAT_SCENE, GAP = "features", "chat-scene", "gap"
CHECKPOINTS = {CHAT_SCENE: "model.checkpoint", GAP: "gap.checkpoint"}  # by config key
WHAT = (FEATURES, *CHECKPOINTS)

_MOST_SETTINGS = 10_000


class Progress(Protocol):
    """What a conversion reports."""

    def start(self, source: Path, stage: str, total: int) -> None:
        """It is reading, packing or writing now, `total` scenes of it where that is counted, else 0."""

    def advance(self) -> None:
        """One scene more."""

    def done(self, source: Path) -> None:
        """It is converted."""


@dataclass(frozen=True)
class Conversion:
    """A file to convert.

    Attributes:
        what: one of `WHAT`.
        source: the released file; target: what it becomes.
        done: whether the target is there and was made from this very source.
        size: bytes that the target has, or about will have.
    """

    what: str
    source: Path
    target: Path
    done: bool
    size: int

    @property
    def key(self) -> str | None:
        """The config key that names a checkpoint; None for features, which are found by their name."""
        return CHECKPOINTS.get(self.what)


def plan_conversions(config: Config, what: Sequence[str] = (), to: Path | None = None) -> list[Conversion]:
    """What there is to convert.

    Args:
        what: of `WHAT`; none: everything that is there in released form.
        to: the folder to write to; None: beside the files converted.

    Raises:
        DataError: a file that was asked for is missing, or there is nothing to convert.
        UsageError: where a target would be, there is a file that `convert` did not write.
    """
    for name in what:
        if name not in WHAT:
            raise UsageError(f"there is no {name!r} to convert; choose from {', '.join(WHAT)}")
    if config.embedded and to is None:
        raise UsageError("the embedded demo needs no conversion; name your config with --config, or a folder with --to")
    found = []
    for name in WHAT:
        if name in what or not what:
            found += [_planned(name, source, to) for source in _sources(config, name, asked=name in what)]
    if not found:
        raise DataError(
            f"there is nothing in released form to convert; {config.source} names no such file that is there"
        )
    return found


def _sources(config: Config, what: str, *, asked: bool) -> list[Path]:
    """The released files of a kind; only those that are there, unless they are asked for."""
    if what == FEATURES:
        folder = need_path(config, "data.annotations")
        files = [folder / name for name in (FEATURES_3D, FEATURES_2D)]
    else:
        section, key = CHECKPOINTS[what].split(".")
        path = getattr(getattr(config, section), key)
        files = [need_checkpoint(config, CHECKPOINTS[what]) if asked or path.is_dir() else path]
        if asked and files[0].suffix == ".safetensors":
            raise UsageError(f"{CHECKPOINTS[what]} is {files[0]}, which is no released file but safetensors already")
    return [need_file(path, what) for path in files if asked or (path.exists() and path.suffix != ".safetensors")]


def _planned(what: str, source: Path, to: Path | None) -> Conversion:
    target = (to or source.parent) / packed_file(source).name
    done, size = False, source.stat().st_size
    if target.exists():
        try:
            origin = TensorFile(target, what).source
        except DataError:
            origin = None
        if origin is None:
            raise UsageError(
                f"{target} is there and was not written by `fast3d convert`; move it away, or say --to DIR"
            )
        done, size = origin.is_at(source), target.stat().st_size
    return Conversion(what, source, target, done, size)


def convert(conversions: Sequence[Conversion], progress: Progress) -> dict[Path, float]:
    """Converts those that are not done, each in one step; returns target -> seconds of those.

    Raises `DataError` when a file is damaged or the disk has not the room.
    """
    todo = [one for one in conversions if not one.done]
    for folder in {one.target.parent for one in todo}:
        need_space(folder, sum(one.size for one in todo if one.target.parent == folder))
    return {one.target: _convert(one, progress) for one in todo}


def _convert(one: Conversion, progress: Progress) -> float:
    begin = time.perf_counter()
    progress.start(one.source, "reading", 0)
    origin = Original.of(one.source)
    tensors, metadata = _read(one, progress)
    apart = _apart(tensors)
    need_space(one.target.parent, sum(tensor.nbytes for tensor in apart.values()))
    progress.start(one.source, "writing", 0)
    if not origin.is_at(one.source):
        raise DataError(f"{one.source} was changed while it was read; run `fast3d convert` again")
    write_tensors(one.target, apart, metadata, origin)
    progress.done(one.source)
    return time.perf_counter() - begin


def _read(one: Conversion, progress: Progress) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """The tensors of a released file, and the plain data that is kept beside them."""
    if one.what == FEATURES:
        return _packed(ReleasedFeatures(one.source), one.source, progress), {}
    if one.what == GAP:
        return read_tensors(one.source)
    tensors, settings = read_checkpoint(one.source)
    return tensors, {"config": settings} if _is_plain(settings) else {}


def _is_plain(settings: dict[str, Any]) -> bool:
    """Whether JSON can hold them; a pickle may hold lists in lists in lists, each of them many times."""
    pending: list[Any] = [settings]
    met = 0
    while pending and met < _MOST_SETTINGS:
        value = pending.pop()
        met += 1
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    try:
        return met < _MOST_SETTINGS and bool(parse_json(json.dumps(settings)))
    except (ValueError, TypeError, RecursionError):
        return False


def _packed(features: ReleasedFeatures, source: Path, progress: Progress) -> dict[str, Tensor]:
    progress.start(source, "packing", len(features.first))
    tensors = {}
    for scene in features.first:
        tensors[f"slots/{scene}"], tensors[f"features/{scene}"] = features[scene]
        progress.advance()
    return tensors


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, none of which shares its numbers with another: safetensors keeps none that do."""
    apart, storages = {}, set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        alone = tensor.is_contiguous() and storage.nbytes() == tensor.nbytes and storage.data_ptr() not in storages
        storages.add(storage.data_ptr())
        apart[name] = tensor if alone else tensor.clone(memory_format=torch.contiguous_format)
    return apart
