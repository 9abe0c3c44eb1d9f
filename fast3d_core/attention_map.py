"""Attention over the objects of a scene, and which kind of numbers it is given in.

It passes from the map files and the GAP network to the pruning methods, and knows none of them. torch is not imported,
as the modules of methods are read for the command line's help.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from fast3d_core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

MapKind = Literal["logits", "shares"]
"""Scores before a softmax, as GAP predicts them, or shares of attention, as extraction records them."""

MAP_KINDS: tuple[MapKind, ...] = get_args(MapKind)


@dataclass(frozen=True)
class AttentionMap:
    """The map of a sample, or of several.

    Attributes:
        kind: what the scores are; None where they might be either.
        scores: (..., objects) float32. A higher one is more attention, of either kind: enough for methods that rank.
    """

    kind: MapKind | None
    scores: "Tensor"

    def logits(self) -> "Tensor":
        """The scores (..., objects), for what takes their softmax. Raises `DataError` unless they are logits."""
        if self.kind != "logits":
            found = "shares of attention" if self.kind == "shares" else "scores of unknown kind"
            raise DataError(f"the attention map holds {found}, and what reads it takes the softmax of logits")
        return self.scores

    def __getitem__(self, row: int) -> "AttentionMap":
        """The map of the sample at this position."""
        return AttentionMap(self.kind, self.scores[row])
