"""GAP (arXiv 2507.09334, section 3.2): keep the objects that the predicted global attention map ranks highest."""

from dataclasses import dataclass
from typing import ClassVar

from fast3d_core.plan import Plan
from fast3d_core.pruning.base import PlanRequest, Pruner, top_tokens


@dataclass(frozen=True)
class Gap(Pruner):
    """The `keep` tokens of the objects with the largest scores, the same from layer K to the end and while decoding."""

    layer: int
    keep: int
    name: ClassVar[str] = "gap"
    needs_map: ClassVar[bool] = True

    def plan(self, request: PlanRequest) -> Plan:
        assert request.scores is not None
        kept = top_tokens(request.scores, self.keep, request.units.tokens)
        return Plan(self.layer, request.units.visual, self.keep, kept)
