"""What can be asked about: scenes by name, their objects with labels and boxes."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fast3d_core.data.annotations import Scene, Scenes, load_boxes, locations, locations_file
from fast3d_core.errors import DataError, UsageError
from fast3d_core.mentions import mention

_SPLITS = ("val", "train")  # where a scene's boxes are looked for
_LONGEST = 80  # characters of a label


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene.

    Attributes:
        slot: its number, by which prompts and answers name it: 17 is <OBJ017>.
        label: what the detector took it for; None where the files do not tell.
        centre, size: of its box, in metres, likewise.
    """

    slot: int
    label: str | None = None
    centre: tuple[float, float, float] | None = None
    size: tuple[float, float, float] | None = None

    def __str__(self) -> str:
        return f"{self.label or 'object'} {mention(self.slot)}"


class Rooms:
    """The scenes of an annotations folder that have features, with the boxes of whichever split has them.

    Args:
        folder: the annotations folder; objects: slots of a scene (100).
    """

    def __init__(self, folder: Path, slots: int = 100):
        self.scenes = Scenes(folder, slots)
        self._boxes: dict[str, dict[str, Any]] = {}  # by split, read when they are first asked for

    def __iter__(self) -> Iterator[str]:
        """The scenes' names, sorted."""
        return iter(self.scenes)

    def scene(self, name: str) -> Scene:
        """Its features. Raises `UsageError` where there is no such scene."""
        if name not in self.scenes:
            names = list(self.scenes)
            near = difflib.get_close_matches(name[:80], names, n=3) or names[:3]
            raise UsageError(
                f"there is no scene {name[:80]!r} in {self.scenes.folder}; the nearest are {', '.join(near)}"
                f" (`fast3d ask --scene list` lists all {len(names)})"
            )
        return self.scenes[name]

    def objects(self, name: str) -> list[SceneObject]:
        """What the LLM reads of a scene, by slot. Raises `UsageError` where there is no such scene."""
        present = self.scene(name).present.nonzero().flatten().tolist()
        detected = self.detected(name)
        return [detected[slot] if slot < len(detected) else SceneObject(slot) for slot in present]

    def detected(self, name: str) -> list[SceneObject]:
        """All detected objects of a scene, slot after slot, also those without features; none where no split has it."""
        found = self._find(name)
        if found is None:
            return []
        split, entry = found
        boxes = self._located(name, split)[: len(entry["locs"])].tolist()
        labels = entry.get("objects")
        labels = [] if not isinstance(labels, list) else [_label(label) for label in labels[: len(boxes)]]
        labels += [None] * (len(boxes) - len(labels))
        return [
            SceneObject(slot, label, (x, y, z), (wide, deep, high))
            for slot, (label, (x, y, z, wide, deep, high)) in enumerate(zip(labels, boxes, strict=True))
        ]

    def locations(self, name: str) -> Tensor:
        """The boxes as GAP reads them, see `load_locations`. Raises `DataError` where no split has them."""
        found = self._find(name)
        if found is None:
            files = " or ".join(locations_file(self.scenes.folder, split).name for split in _SPLITS)
            raise DataError(f"{self.scenes.folder}: no {files} has boxes of scene {name}, which GAP needs")
        return self._located(name, found[0])

    def _find(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """The split that has this scene's boxes, and what it says of it."""
        for split in _SPLITS:
            if split not in self._boxes:
                there = locations_file(self.scenes.folder, split).exists()
                self._boxes[split] = load_boxes(self.scenes.folder, split) if there else {}
            if name in self._boxes[split]:
                self._located(name, split)  # refuses what is damaged
                return split, self._boxes[split][name]
        return None

    def _located(self, name: str, split: str) -> Tensor:
        path = locations_file(self.scenes.folder, split)
        return locations(self._boxes[split], name, path, self.scenes.objects)


def _label(label: Any) -> str:
    return str(label)[:_LONGEST].encode(errors="replace").decode()
