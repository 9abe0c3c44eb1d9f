"""SAP's budget before the first layer, and half of it in the second half of the layers."""

# ruff: noqa: RUF009 (`setting` is `dataclasses.field` with names for its metadata)

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fast3d_core.fields import setting
from fast3d_core.pruning import PlanRequest, Pruner, Sap
from fast3d_core.pruning.sap import Alpha

if TYPE_CHECKING:
    from fast3d_core.plan import Plan


@dataclass(frozen=True)
class Pyramid(Pruner):
    """Keeps the objects that SAP keeps, and the better half of them, at least one, in the second half of the layers.

    Settings:
        alpha: share of predicted attention that the objects of the first layers reach; for all datasets, or for each.
    """

    alpha: Alpha = setting(doc="share of predicted attention to keep in the first layers", above=0, at_most=1)
    name: ClassVar[str] = "pyramid"
    title: ClassVar[str] = "Pyramid"
    colour: ClassVar[str] = "#332288"
    needs_map: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    drops_at_entry: ClassVar[bool] = True

    def plan(self, request: PlanRequest) -> "Plan":
        from fast3d_core.plan import Plan, Stage

        (first,) = Sap(self.alpha).plan(request).stages
        middle, tokens = request.layers // 2, request.units.tokens
        half = tokens * max(1, first.count // tokens // 2)
        if middle == 0 or half == first.count:
            return Plan(request.units.visual, [first])
        best = request.logits[first.select // tokens].topk(half).indices  # of the kept tokens
        return Plan(request.units.visual, [first, Stage(middle, half, first.select[best].sort().values)])
