"""No pruning: the model as it is."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fast3d_core.plan import Plan
from fast3d_core.pruning.base import PlanRequest, Pruner


@dataclass(frozen=True)
class Vanilla(Pruner):
    """Keeps every visual token: what the other methods are compared to."""

    name: ClassVar[str] = "vanilla"

    def plan(self, request: PlanRequest) -> Plan:
        visual = request.units.visual
        return Plan(layer=0, visual=visual, count=visual, kept=torch.arange(visual))
