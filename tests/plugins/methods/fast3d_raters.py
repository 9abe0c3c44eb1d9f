"""Text tokens rate visual tokens, after the idea of SparseVLM (arXiv 2410.04417): those that look at them most."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from fast3d_core.errors import UsageError
from fast3d_core.pruning import PlanRequest, Pruner

if TYPE_CHECKING:
    from torch import Tensor

    from fast3d_core.plan import Plan, View


@dataclass(frozen=True)
class Raters(Pruner):
    """Keeps the tokens that those text tokens look at most which pay the scene more attention than the mean text token.

    Settings:
        layer: K, at least 1, from which on only the kept tokens are seen; keep: visual tokens kept.
    """

    layer: int
    keep: int
    name: ClassVar[str] = "raters"
    title: ClassVar[str] = "Text raters"
    colour: ClassVar[str] = "#882255"
    source: ClassVar[str] = "arXiv 2410.04417"

    def __post_init__(self) -> None:
        if self.layer == 0:
            raise UsageError("raters reads the attention of layer K - 1, so K must be at least 1 (--layer 1)")

    def plan(self, request: PlanRequest) -> "Plan":
        from fast3d_core.plan import Plan, Stage

        stage = Stage(self.layer, self.keep, partial(_rated, self.keep), look=("text",))
        return Plan(request.units.visual, [stage])


def _rated(keep: int, view: "View") -> "Tensor":
    """The `keep` best offsets by the mean of the rows that pay visual tokens at least what the mean row pays them."""
    assert view.text is not None
    paid = view.text.sum(dim=1)
    raters = view.text[paid >= paid.mean().clamp(max=paid.max())]  # rounding can put the mean of equal numbers above
    return view.offsets[raters.mean(dim=0).topk(keep).indices.sort().values]
