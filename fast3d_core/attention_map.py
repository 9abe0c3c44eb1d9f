"""Attention over the objects of a scene, with what kind of numbers it is told in.

It passes from the map files and the GAP network to the pruning methods, and knows none of them.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fast3d_core.errors import DataError

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
    scores: Tensor

    def logits(self) -> Tensor:
        """The scores (..., objects), for what takes their softmax. Raises `DataError` unless they are logits."""
        if self.kind != "logits":
            found = "shares of attention" if self.kind == "shares" else "scores of unknown kind"
            raise DataError(f"the attention map holds {found}, and sap takes the softmax of logits")
        return self.scores

    def __getitem__(self, row: int) -> "AttentionMap":
        """The map of the sample at this position."""
        return AttentionMap(self.kind, self.scores[row])


def log_shares(shares: Tensor) -> Tensor:
    """Logits whose softmax are these shares of attention (..., objects), each as a part of their sum.

    A share of 0 is given the smallest normal float32, a logit of -87.3: it is finite, and adds nothing to any sum.
    """
    parts = shares.double() / shares.double().sum(dim=-1, keepdim=True)
    return parts.float().clamp(min=torch.finfo(torch.float32).tiny).log()
