"""What a pruning method may look at before the LLM runs."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from fast3d_core.attention_map import MapKind
from fast3d_core.errors import DataError
from fast3d_core.text import printable

if TYPE_CHECKING:
    from torch import Tensor

    from fast3d_core.plan import Units

T = TypeVar("T")
Given: TypeAlias = T | Callable[[], T] | None
"""A value, or a function that reads it when it is first asked for, or None where there is none."""

_ATTRIBUTES = "scannet_mask3d_val_attributes.pt in data.annotations has them (`fast3d download annotations`)"
_FEATURES = "the feature files in data.annotations have them (`fast3d download annotations`)"
_MISSING = {
    "scores": (
        "no attention map",
        "a method that follows one sets needs_map = True, and takes it from maps.predicted, --maps or --gap live",
    ),
    "layers": ("no number of layers", "config.json in model.llm tells it"),
    "question": ("no question text", "the annotations of the dataset in data.annotations have it"),
    "boxes": ("no boxes", _ATTRIBUTES),
    "labels": ("no labels", _ATTRIBUTES),
    "features_3d": ("no 3D features", _FEATURES),
    "features_2d": ("no 2D features", _FEATURES),
}
"""The error for something that is asked for and not there, which names the file or option that gives it."""


class PlanRequest:
    """The sample that a plan is made for, with all that is known of it before the LLM runs.

    Whatever is not there raises `DataError` when it is asked for, and the message names it and the file or option that
    gives it. What has to be read from files is read when a method asks for it, once.

    Args:
        kind: of the scores; None where the map file might hold either.
        scores, layers, question, boxes, labels, features_3d, features_2d: see the properties of these names.

    Attributes:
        dataset, index: the sample's name; methods that draw at random draw from nothing but these and their seed.
        units: what the visual tokens of the prompt stand for.
    """

    def __init__(
        self,
        dataset: str,
        index: int,
        units: "Units",
        scores: "Given[Tensor]" = None,
        *,
        kind: MapKind | None = None,
        layers: Given[int] = None,
        question: Given[str] = None,
        boxes: "Given[Tensor]" = None,
        labels: Given[Sequence[str | None]] = None,
        features_3d: "Given[Tensor]" = None,
        features_2d: "Given[Tensor]" = None,
    ):
        self.dataset, self.index, self.units, self.kind = dataset, index, units, kind
        self._given: dict[str, Any] = {
            "scores": scores,
            "layers": layers,
            "question": question,
            "boxes": boxes,
            "labels": labels,
            "features_3d": features_3d,
            "features_2d": features_2d,
        }

    @property
    def scores(self) -> "Tensor":
        """(units,) float32 attention map, higher is more, of either kind: enough for methods that rank."""
        return self._get("scores")  # type: ignore[no-any-return]

    @property
    def logits(self) -> "Tensor":
        """The same, for methods that take its softmax. Raises `DataError` where the scores are known to be shares."""
        if self.kind == "shares":
            raise DataError(
                f"the attention map of {self._sample} holds shares of attention, where logits are asked for",
                "a method that takes a softmax sets needs_logits = True",
            )
        return self.scores

    @property
    def layers(self) -> int:
        """Layers of the LLM."""
        return self._get("layers")  # type: ignore[no-any-return]

    @property
    def question(self) -> str:
        """The question as the LLM reads it, without the conversation around it."""
        return self._get("question")  # type: ignore[no-any-return]

    @property
    def boxes(self) -> "Tensor":
        """(units, 6) float32: centre and size of each slot's detected box in metres, zeros behind the last."""
        return self._get("boxes")  # type: ignore[no-any-return]

    @property
    def labels(self) -> Sequence[str | None]:
        """What the detector took each slot's object for, one a unit; None behind the last."""
        return self._get("labels")  # type: ignore[no-any-return]

    @property
    def features_3d(self) -> "Tensor":
        """(units, 3D width) float32 of each slot's object, zeros where there is none."""
        return self._get("features_3d")  # type: ignore[no-any-return]

    @property
    def features_2d(self) -> "Tensor":
        """(units, 2D width) float32, likewise."""
        return self._get("features_2d")  # type: ignore[no-any-return]

    @property
    def _sample(self) -> str:
        return printable(f"sample {self.index} of {self.dataset or 'no dataset'}"[:120])

    def _get(self, name: str) -> Any:
        value = self._given[name]
        if callable(value):
            value = self._given[name] = value()
        if value is None:
            what, do = _MISSING[name]
            raise DataError(f"a method asks for {name}, but {self._sample} comes with {what}", do)
        return value
