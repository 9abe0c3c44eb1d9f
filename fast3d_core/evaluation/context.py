"""What a pruning method may look at beside an attention map, read when it is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from fast3d_core.data.annotations import Sample, Scene


@dataclass(frozen=True)
class Context:
    """Where the parts of a `PlanRequest` come from; None where there are none.

    Attributes:
        layers: of the LLM, or what reads their number.
        features: scene -> its features; boxes: scene -> (objects, 6); labels: scene -> a label for each slot.
    """

    layers: int | Callable[[], int] | None = None
    features: Callable[[str], Scene] | None = None
    boxes: Callable[[str], Tensor] | None = None
    labels: Callable[[str], Sequence[str | None]] | None = None

    def of(self, sample: Sample) -> dict[str, Any]:
        """The parts for a sample, as `PlanRequest` takes them: nothing is read yet."""
        scene = sample.scene_id
        return {
            "layers": self.layers,
            "question": sample.prompt,
            "boxes": self.boxes and partial(self.boxes, scene),
            "labels": self.labels and partial(self.labels, scene),
            "features_3d": self.features and partial(self._feature, scene, "features_3d"),
            "features_2d": self.features and partial(self._feature, scene, "features_2d"),
        }

    def _feature(self, scene: str, name: str) -> Tensor:
        assert self.features is not None
        return getattr(self.features(scene), name)  # type: ignore[no-any-return]
