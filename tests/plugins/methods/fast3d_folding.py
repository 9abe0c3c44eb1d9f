"""Objects that are dropped are not lost: each is folded into the kept one that it is most like."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fast3d_core.pruning import PlanRequest, Pruner, top_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from fast3d_core.plan import Plan, View


@dataclass(frozen=True)
class Folding(Pruner):
    """Keeps the tokens with the most predicted attention, each as the mean of itself and the dropped nearest to it.

    Settings:
        layer: K, from which on only the kept tokens are seen; keep: visual tokens kept.
    """

    layer: int
    keep: int
    name: ClassVar[str] = "folding"
    title: ClassVar[str] = "Folding"
    colour: ClassVar[str] = "#117733"
    needs_map: ClassVar[bool] = True

    def plan(self, request: PlanRequest) -> "Plan":
        from fast3d_core.plan import Plan, Stage

        kept = top_tokens(request.scores, self.keep, request.units.tokens)
        return Plan(request.units.visual, [Stage(self.layer, self.keep, kept, merge=_folded, look=("hidden",))])


def _folded(view: "View", kept: "Tensor") -> "Tensor":
    """Hidden states (count, hidden) of the kept tokens: means over the tokens whose nearest one by cosine they are."""
    import torch

    assert view.hidden is not None
    states = view.hidden.float()
    directions = torch.nn.functional.normalize(states, dim=1)
    nearest = (directions @ directions[kept].T).argmax(dim=1)
    nearest[kept] = torch.arange(len(kept), device=kept.device)  # equal ones stay themselves
    folded = torch.nn.functional.one_hot(nearest, len(kept)).float()  # (n, count)
    return folded.T @ states / folded.sum(dim=0)[:, None]
