"""No pruning: the model as it is."""

from dataclasses import dataclass
from typing import ClassVar

from fast3d_core.plan import TOKENS_PER_OBJECT, Plan
from fast3d_core.pruning.base import PlanRequest, Pruner


@dataclass(frozen=True)
class Vanilla(Pruner):
    """Keeps every visual token: what the other methods are compared to."""

    name: ClassVar[str] = "vanilla"

    def plan(self, request: PlanRequest) -> Plan:
        return Plan(request.objects * TOKENS_PER_OBJECT)
