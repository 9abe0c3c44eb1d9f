"""Which detected box is meant by a ground-truth object: the one of highest IoU."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fast3d_core.benchmarks.boxes import iou
from fast3d_core.data.annotations import MOST_BOXES, box_table, locations_file
from fast3d_core.errors import DataError
from fast3d_core.files.files import load_torch
from fast3d_core.prepare.maker import DroppedError
from fast3d_core.prepare.raw import Releases

TRAIN_IOU = 0.5
"""A training record's objects overlap their detected boxes at least so (Chat-Scene's preprocess/run_prepare.sh)."""

TOO_FAR = f"best IoU below {TRAIN_IOU}"

_FAR = 1e4  # metres


def objects_file(folder: Path, split: str) -> Path:
    """Where the ground-truth boxes of a split's scenes are."""
    return folder / f"scannet_{split}_attributes.pt"


class Boxes:
    """The boxes of a split's scenes, from the published files in `folder` or else among the releases.

    Args:
        folder: the annotations folder.
        objects: boxes of a scene that have a name, `<OBJ000>` and on; Chat-Scene keeps 100.

    Reading a file at first use raises `DataError` where it is missing or damaged.
    """

    def __init__(self, folder: Path, releases: Releases, split: str, objects: int):
        self._folder = folder
        self._releases = releases
        self._split = split
        self._objects = objects

    @cached_property
    def _true(self) -> "_Published":
        return self._load(objects_file(self._folder, self._split))

    @cached_property
    def _detected(self) -> "_Published":
        return self._load(locations_file(self._folder, self._split))

    def overlap(self, scene: str, objects: Sequence[int]) -> np.ndarray:
        """(objects, detected) float64, the IoU of ground-truth objects with the detected boxes.

        Raises:
            DroppedError: the scene has no detected boxes, or an object none of its own.
            DataError: the scene's boxes are damaged.
        """
        detected = self._detected.boxes(scene)[: self._objects]
        if not len(detected):
            raise DroppedError("scene without detected boxes")
        true = self._true.boxes(scene)
        if any(index >= len(true) for index in objects):
            raise DroppedError("no ground-truth box")
        return iou(true[list(objects)][:, None], detected)

    def lack(self, scene: str, index: int) -> str | None:
        """Why `overlap` drops an object, or None."""
        try:
            self.overlap(scene, [index])
        except DroppedError as reason:
            return str(reason)
        return None

    def _load(self, path: Path) -> "_Published":
        found = path if path.exists() else self._releases.find(path.name)
        if found is None:
            raise DataError(
                f"{path.name} is neither in {self._folder} nor in {self._releases.folder}; boxes are not made here: "
                "`fast3d download annotations` gets them"
            )
        return _Published(found)


class _Published:
    """A file of box attributes, {scene: {"locs": (n, 6)}}."""

    def __init__(self, path: Path):
        content = load_torch(path, "boxes")
        if not isinstance(content, dict):
            raise DataError(f"{path} should hold boxes by scene, not a {type(content).__name__}")
        self._path = path
        self._scenes: dict[Any, Any] = content

    def boxes(self, scene: str) -> np.ndarray:
        """(n, 6) float64, centre and size in metres; none where the file does not have the scene."""
        if scene not in self._scenes:
            return np.zeros((0, 6))
        locs = box_table(self._scenes[scene])
        if locs is None:
            raise DataError(f"{self._path} should have up to {MOST_BOXES} boxes (n, 6) under 'locs' for scene {scene}")
        boxes = locs.double().numpy()
        if not (np.abs(boxes) <= _FAR).all() or (boxes[:, 3:] < 0).any():
            raise DataError(f"{self._path}: the boxes of scene {scene} are not centres and sizes in metres")
        return boxes
