"""SAP (arXiv 2507.09334, section 3.3): each sample keeps the fewest objects whose predicted attention reaches alpha."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fast3d_core.errors import UsageError
from fast3d_core.plan import TOKENS_PER_OBJECT, Plan
from fast3d_core.pruning.base import PlanRequest, Pruner, top_tokens


@dataclass(frozen=True)
class Sap(Pruner):
    """The fewest objects whose share of softmax(map) reaches `alpha`, from layer 0 on."""

    alpha: float
    name: ClassVar[str] = "sap"
    needs_map: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise UsageError(f"alpha must lie in (0, 1], not {self.alpha:g}")

    def plan(self, request: PlanRequest) -> Plan:
        assert request.scores is not None
        count = TOKENS_PER_OBJECT * objects_to_reach(request.scores, self.alpha)
        return Plan(0, request.objects * TOKENS_PER_OBJECT, count, top_tokens(request.scores, count))


def objects_to_reach(scores: Tensor, alpha: float) -> int:
    """The smallest number of objects whose probabilities, largest first, add up to at least `alpha`.

    `scores` (objects,) are logits. Sums are float32, as published, so that a sum that meets alpha to the last bit falls
    the same way; where rounding leaves the whole sum below alpha, all objects are needed.
    """
    mass = torch.softmax(scores.float().cpu(), dim=-1).sort(descending=True).values.cumsum(-1)
    return min(int((mass < alpha).sum()) + 1, len(mass))
