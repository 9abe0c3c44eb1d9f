"""GAP (arXiv 2507.09334, section 3.2): keep the objects that the predicted global attention map ranks highest."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fast3d_core.pruning.base import Pruner, top_tokens
from fast3d_core.pruning.request import PlanRequest

if TYPE_CHECKING:
    from fast3d_core.plan import Plan


@dataclass(frozen=True)
class Gap(Pruner):
    """Keeps the tokens of the objects with the most predicted attention, the same from layer K to the end.

    Paper: Fast3D (arXiv 2507.09334), section 3.2. A small network predicts, from the question and the scene, how much
    attention the LLM pays to each object; the best are kept, in prefill and while decoding.

    Settings:
        layer: K, from which on only the kept tokens are seen; keep: visual tokens kept.
    """

    layer: int
    keep: int
    name: ClassVar[str] = "gap"
    title: ClassVar[str] = "GAP"
    colour: ClassVar[str] = "#0072b2"
    marker: ClassVar[str] = "s"
    source: ClassVar[str] = "arXiv 2507.09334, section 3.2"
    needs_map: ClassVar[bool] = True
    rule: ClassVar[Literal["rank"]] = "rank"

    def plan(self, request: PlanRequest) -> "Plan":
        from fast3d_core.plan import Plan, Stage

        kept = top_tokens(request.scores, self.keep, request.units.tokens)
        return Plan(request.units.visual, [Stage(self.layer, self.keep, kept)])
