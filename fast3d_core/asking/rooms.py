"""What can be asked about: scenes by name, their objects with labels and boxes."""

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fast3d_core.data.annotations import Scene, Scenes
from fast3d_core.data.detections import Detections
from fast3d_core.errors import UsageError
from fast3d_core.mentions import mention


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene.

    Attributes:
        slot: its number, by which prompts and answers name it: 17 is <OBJ017>.
        label: what the detector took it for; None where the files do not say.
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
        folder: the annotations folder; slots: of a scene (100).

    Attributes:
        scenes: their features; detections: their boxes and labels.
    """

    def __init__(self, folder: Path, slots: int = 100):
        self.scenes = Scenes(folder, slots)
        self.detections = Detections(folder, slots)

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
        if name not in self.detections:
            return []
        count = self.detections.count(name)
        boxes, labels = self.detections.boxes(name)[:count].tolist(), self.detections.labels(name)[:count]
        return [
            SceneObject(slot, label, (x, y, z), (wide, deep, high))
            for slot, (label, (x, y, z, wide, deep, high)) in enumerate(zip(labels, boxes, strict=True))
        ]

    def locations(self, name: str) -> Tensor:
        """The boxes as GAP reads them, see `load_locations`. Raises `DataError` where no split has them."""
        return self.detections.boxes(name)
