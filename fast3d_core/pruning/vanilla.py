"""No pruning: the model as it is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fast3d_core.pruning.base import Pruner
from fast3d_core.pruning.request import PlanRequest

if TYPE_CHECKING:
    from fast3d_core.plan import Plan


@dataclass(frozen=True)
class Vanilla(Pruner):
    """Keeps every visual token: what the other methods are compared to.

    Paper: Chat-Scene (arXiv 2312.08168), whose model it is. It has no settings.
    """

    name: ClassVar[str] = "vanilla"
    colour: ClassVar[str] = "#000000"
    marker: ClassVar[str] = "o"
    source: ClassVar[str] = "arXiv 2312.08168"
    is_baseline: ClassVar[bool] = True

    def plan(self, request: PlanRequest) -> "Plan":
        from fast3d_core.plan import Plan

        return Plan(request.units.visual)
