"""The object features of all scenes, in the released form or packed.

Released is one dict of some 150,000 small tensors, {"scene0011_00_07": (width,)}, which takes long to unpickle. Packed,
as `fast3d convert` writes it, is a safetensors file of two tensors a scene, read when the scene is asked for:

    features/<scene>   (n, width) float32
    slots/<scene>      (n,) int64, ascending: the slot of each row

A packed file beside a released one is read in its place, if it was made from that very file.
"""

from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from fast3d_core.errors import DataError
from fast3d_core.files.files import load_torch
from fast3d_core.files.tensors import TensorFile
from fast3d_core.text import shown

FEATURES_3D = "scannet_mask3d_uni3d_feats.pt"
FEATURES_2D = "scannet_mask3d_videofeats.pt"

_WIDEST = 1 << 16  # beyond any encoder: a damaged file must not make us allocate all memory
_SLOT_DIGITS = 6
_WHAT = "data.annotations"


class SceneFeatures(NamedTuple):
    """What a file has of a scene: `rows` (n, width) float32, and the slot of each, (n,) int64, ascending."""

    slots: Tensor
    rows: Tensor


class Features(Protocol):
    """A file of features.

    Attributes:
        path: the file; width: numbers of a feature; first: scene -> the first slot that has one.
    """

    path: Path
    width: int
    first: dict[str, int]

    def __getitem__(self, scene: str) -> SceneFeatures:
        """What the file has of one of its scenes."""


def packed_file(path: Path) -> Path:
    """Where the packed form of a released file is."""
    return path.with_suffix(".safetensors")


def features_file(path: Path) -> Path:
    """The file to read features from: the packed form of the released file `path`, or else `path` itself."""
    return packed_file(path) if packed_file(path).exists() else path


def features_files(folder: Path) -> list[Path]:
    """The files that the features of an annotations folder are read from."""
    return [features_file(folder / name) for name in (FEATURES_3D, FEATURES_2D)]


def open_features(path: Path) -> Features:
    """The features in the released file `path`, or in the packed one in its place.

    Raises `DataError` when there is neither, or the file is damaged, or the packed one was made from another.
    """
    packed = packed_file(path)
    return PackedFeatures(packed, path) if packed.exists() else ReleasedFeatures(path)


class ReleasedFeatures:
    """The released form, unpickled at once. Raises `DataError` when the file is missing or damaged."""

    def __init__(self, path: Path):
        self.path = path
        content = load_torch(path, _WHAT, mmap=True)
        if not isinstance(content, dict) or not content:
            raise DataError(f"{path} should hold a dict of features such as 'scene0011_00_07'")
        self._slots: dict[str, dict[int, Tensor]] = {}
        widths = set()
        for key, feature in content.items():
            scene, slot = _place(key)
            if not scene or not isinstance(feature, Tensor) or feature.dim() != 1 or not feature.is_floating_point():
                raise DataError(
                    f"{path}: {shown(key)} should be named like 'scene0011_00_07' and hold one feature vector"
                )
            widths.add(len(feature))
            slots = self._slots.setdefault(scene, {})
            if slot in slots and not feature.float().equal(slots[slot].float()):
                other = next(name for name in content if _place(name) == (scene, slot))
                raise DataError(
                    f"{path} holds {shown(other)} and {shown(key)}, two features of one object",
                    "delete one of them, Chat-Scene reads that with two digits, or make the file again",
                )
            slots[slot] = feature
        if len(widths) != 1:
            raise DataError(f"{path} mixes features of widths {sorted(widths)[:20]}")
        self.width = _checked_width(widths.pop(), path)
        self.first = {scene: min(slots) for scene, slots in self._slots.items()}

    def __getitem__(self, scene: str) -> SceneFeatures:
        by_slot = sorted(self._slots[scene].items())
        rows = torch.empty(len(by_slot), self.width)
        for row, (_, feature) in zip(rows, by_slot, strict=True):
            row.copy_(feature)
        return SceneFeatures(torch.tensor([slot for slot, _ in by_slot]), rows)


def _place(key: object) -> tuple[str, int]:
    """Scene and slot in a feature's name; no scene where it has none."""
    scene, _, slot = key.rpartition("_") if isinstance(key, str) and key.isascii() else ("", "", "")
    number = slot.isdecimal() and len(slot) <= _SLOT_DIGITS
    return (scene, int(slot)) if number else ("", 0)


def _checked_width(width: int, path: Path) -> int:
    if not 0 < width <= _WIDEST:
        raise DataError(f"{path} holds features of {width} numbers; 1 to {_WIDEST} can be meant")
    return width


class PackedFeatures:
    """The packed form, of which only the slots are read at once.

    Args:
        original: the released file. It need not be there, but if it is, it must be the one that was packed.

    Raises `DataError` when the file is missing or damaged, or was made from another.
    """

    def __init__(self, path: Path, original: Path):
        self.path = path
        self._file = TensorFile(path, _WHAT)
        scenes = [name.removeprefix("slots/") for name in self._file if name.startswith("slots/")]
        if self._file.source is None or not scenes or len(self._file) != 2 * len(scenes):
            raise self._damaged("it is not what `fast3d convert` writes")
        if original.exists() and not self._file.source.is_at(original):
            raise DataError(
                f"{path} was made from another {original.name} than the one beside it; run `fast3d convert` again, or "
                "delete it"
            )
        self.width = _checked_width(self._row_shape(scenes[0])[1], path)
        self._slots = {scene: self._checked_slots(scene) for scene in scenes}
        self.first = {scene: int(slots[0]) for scene, slots in self._slots.items()}

    def __getitem__(self, scene: str) -> SceneFeatures:
        return SceneFeatures(self._slots[scene], self._file[f"features/{scene}"])

    def _row_shape(self, scene: str) -> tuple[int, int]:
        dtype, shape = self._file.shape(f"features/{scene}")
        if dtype != "F32" or len(shape) != 2:
            raise self._damaged(f"the features of {scene[:80]} are {dtype} {shape}")
        return shape[0], shape[1]

    def _checked_slots(self, scene: str) -> Tensor:
        dtype, shape = self._file.shape(f"slots/{scene}")
        rows, width = self._row_shape(scene)
        if (dtype, shape, width) != ("I64", (rows,), self.width) or not rows:
            raise self._damaged(f"{scene[:80]} has slots {dtype} {shape} for features {(rows, width)}")
        slots = self._file[f"slots/{scene}"]
        if slots[0] < 0 or (slots.diff() <= 0).any() or slots[-1] >= 10**_SLOT_DIGITS:
            raise self._damaged(f"the slots of {scene[:80]} do not ascend")
        return slots

    def _damaged(self, problem: str) -> DataError:
        return DataError(f"{self.path} is damaged ({problem}); run `fast3d convert` again, or delete it")
