"""FastV (arXiv 2403.06764): keep the tokens that the last prompt token attends to at layer K - 1."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from fast3d_core.errors import UsageError
from fast3d_core.plan import TOKENS_PER_OBJECT, Plan, Stage, View
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
        select = partial(_top_attended, self.keep)
        stage = Stage(self.layer, self.keep, select, look=("last",), every_step=True)
        return Plan(request.objects * TOKENS_PER_OBJECT, [stage])


def _top_attended(keep: int, view: View) -> Tensor:
    assert view.last is not None
    return view.offsets[torch.topk(view.last, keep).indices.sort().values]
