"""FastV (arXiv 2403.06764): keep the tokens that the last prompt token attends to at layer K - 1."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from fast3d_core.errors import UsageError
from fast3d_core.plan import Plan
from fast3d_core.pruning.base import PlanRequest, Pruner


@dataclass(frozen=True)
class FastV(Pruner):
    """The `keep` tokens with the largest attention, averaged over heads, of the last prompt token at layer K - 1.

    The fast engine fixes the set at prefill; the reference engine picks it anew at every decoding step from beam 0's
    newest token, as the published decoder does.
    """

    layer: int
    keep: int
    name: ClassVar[str] = "fastv"

    def __post_init__(self) -> None:
        if self.layer == 0:
            raise UsageError("fastv reads the attention of layer K - 1, so K must be at least 1 (--layer 1)")

    def plan(self, request: PlanRequest) -> Plan:
        return Plan(self.layer, request.units.visual, self.keep, choose=partial(_top_attended, self.keep))


def _top_attended(keep: int, scores: Tensor) -> Tensor:
    return torch.topk(scores, keep).indices.sort().values
