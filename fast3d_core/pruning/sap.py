"""SAP (arXiv 2507.09334, section 3.3): each sample keeps the fewest objects whose predicted attention reaches alpha."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fast3d_core.errors import UsageError
from fast3d_core.plan import Plan
from fast3d_core.pruning.base import PlanRequest, Pruner, top_tokens

Alpha = float | Mapping[str, float]
"""A share of attention in (0, 1], one for all datasets or one for each."""


@dataclass(frozen=True)
class Sap(Pruner):
    """The fewest objects whose share of softmax(map) reaches `alpha`, from layer 0 on."""

    alpha: Alpha
    name: ClassVar[str] = "sap"
    needs_map: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for alpha in self.alpha.values() if isinstance(self.alpha, Mapping) else (self.alpha,):
            if not 0 < alpha <= 1:
                raise UsageError(f"alpha must lie in (0, 1], not {alpha:g}")

    def plan(self, request: PlanRequest) -> Plan:
        assert request.scores is not None
        alpha = self.alpha[request.dataset] if isinstance(self.alpha, Mapping) else self.alpha
        tokens = request.units.tokens
        count = tokens * int(objects_to_reach(request.scores, alpha))
        return Plan(0, request.units.visual, count, top_tokens(request.scores, count, tokens))


def sorted_mass(scores: Tensor) -> Tensor:
    """The probabilities of `scores` (..., objects), logits, summed up from the largest on: (..., objects) float32.

    Element i is what the i + 1 best objects hold together. Sums are float32, as published, on the CPU, so that they
    are the same everywhere, to the last bit.
    """
    return torch.softmax(scores.float().cpu(), dim=-1).sort(dim=-1, descending=True).values.cumsum(-1)


def objects_to_reach(scores: Tensor, alpha: float) -> Tensor:
    """The smallest numbers of objects whose probabilities, largest first, add up to at least `alpha`.

    `scores` (..., objects) are logits; int64 (...), from 1 to objects. A sum that meets alpha, as float32, to the last
    bit reaches it; where rounding leaves the whole sum below alpha, all objects are needed.
    """
    return (sorted_mass(scores)[..., :-1] < alpha).sum(-1) + 1
