"""What the detector found in each scene: boxes and labels, from whichever split's file has them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from fast3d_core.data.annotations import load_boxes, locations, locations_file
from fast3d_core.errors import DataError

_LONGEST = 80  # characters of a label


class Detections:
    """The detected objects of the scenes of an annotations folder; a split's file is read when it is first needed.

    Args:
        folder: the annotations folder; objects: slots of a scene (100); splits: where a scene is looked for, in order.
    """

    def __init__(self, folder: Path, objects: int = 100, splits: Sequence[str] = ("val", "train")):
        self.folder, self.objects, self.splits = folder, objects, tuple(splits)
        self._files: dict[str, dict[str, Any]] = {}  # by split

    def __contains__(self, scene: str) -> bool:
        """Whether any split has boxes of the scene. Raises `DataError` where they are damaged."""
        return self._find(scene) is not None

    def count(self, scene: str) -> int:
        """Detected objects of a scene that have a slot; 0 where no split has it."""
        found = self._find(scene)
        return 0 if found is None else min(len(found[1]["locs"]), self.objects)

    def boxes(self, scene: str) -> Tensor:
        """(objects, 6) float32, see `load_locations`. Raises `DataError` where no split has the scene's boxes."""
        found = self._find(scene)
        if found is None:
            files = " or ".join(locations_file(self.folder, split).name for split in self.splits)
            raise DataError(
                f"{self.folder}: no {files} has boxes of scene {scene[:80]}", "get it by `fast3d download annotations`"
            )
        return self._located(scene, found[0])

    def labels(self, scene: str) -> list[str | None]:
        """What the detector took the object of each slot for, `objects` of them; None where the files do not say.

        Raises `DataError` where no split has the scene.
        """
        self.boxes(scene)
        found = self._find(scene)
        names = found[1].get("objects") if found else None
        count = self.count(scene)
        known = [_label(name) for name in names[:count]] if isinstance(names, list) else []
        return [*known, *[None] * (self.objects - len(known))]

    def _find(self, scene: str) -> tuple[str, dict[str, Any]] | None:
        """The split that has this scene's boxes, and what it says of it."""
        for split in self.splits:
            if split not in self._files:
                there = locations_file(self.folder, split).exists()
                self._files[split] = load_boxes(self.folder, split) if there else {}
            if scene in self._files[split]:
                self._located(scene, split)  # refuses what is damaged
                return split, self._files[split][scene]
        return None

    def _located(self, scene: str, split: str) -> Tensor:
        return locations(self._files[split], scene, locations_file(self.folder, split), self.objects)


def _label(label: Any) -> str:
    return str(label)[:_LONGEST].encode(errors="replace").decode()
