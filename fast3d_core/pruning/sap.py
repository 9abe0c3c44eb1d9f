"""SAP (arXiv 2507.09334, section 3.3): each sample keeps the fewest objects whose predicted attention reaches alpha."""

# ruff: noqa: RUF009 (`setting` is `dataclasses.field` with names for its metadata)

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fast3d_core.errors import UsageError
from fast3d_core.fields import setting
from fast3d_core.pruning.base import Pruner, top_tokens
from fast3d_core.pruning.request import PlanRequest

if TYPE_CHECKING:
    from torch import Tensor

    from fast3d_core.plan import Plan

Alpha = float | Mapping[str, float]
"""A share of attention in (0, 1], one for all datasets or one for each."""


@dataclass(frozen=True)
class Sap(Pruner):
    """Keeps the fewest objects whose predicted attention adds up to `alpha`, from layer 0 on.

    Paper: Fast3D (arXiv 2507.09334), section 3.3. Questions that need few objects keep few: of the softmax of GAP's
    map, the largest shares are summed up until they reach alpha.

    Settings:
        alpha: share of predicted attention, in (0, 1] (published: 0.21); one for all datasets, or one for each.
    """

    alpha: Alpha = setting(doc="share of predicted attention to keep", above=0, at_most=1)
    name: ClassVar[str] = "sap"
    title: ClassVar[str] = "GAP+SAP"
    colour: ClassVar[str] = "#009e73"
    marker: ClassVar[str] = "D"
    source: ClassVar[str] = "arXiv 2507.09334, section 3.3"
    needs_map: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    adaptive: ClassVar[bool] = True
    drops_at_entry: ClassVar[bool] = True
    rule: ClassVar[Literal["share"]] = "share"

    def __post_init__(self) -> None:
        for alpha in self.alpha.values() if isinstance(self.alpha, Mapping) else (self.alpha,):
            if not 0 < alpha <= 1:
                raise UsageError(f"alpha must lie in (0, 1], not {alpha:g}")

    def plan(self, request: PlanRequest) -> "Plan":
        from fast3d_core.plan import Plan, Stage

        alpha = self.alpha[request.dataset] if isinstance(self.alpha, Mapping) else self.alpha
        scores = request.logits
        count = request.units.tokens * int(objects_to_reach(scores, alpha))
        stage = Stage(0, count, top_tokens(scores, count, request.units.tokens))
        return Plan(request.units.visual, [stage])


def sorted_mass(scores: "Tensor") -> "Tensor":
    """The probabilities of `scores` (..., objects), logits, summed up from the largest on: (..., objects) float32.

    Element i is what the i + 1 best objects hold together. Sums are float32, as published, on the CPU, so that they
    are the same everywhere, to the last bit.
    """
    import torch

    return torch.softmax(scores.float().cpu(), dim=-1).sort(dim=-1, descending=True).values.cumsum(-1)


def objects_to_reach(scores: "Tensor", alpha: float) -> "Tensor":
    """The smallest numbers of objects whose probabilities, largest first, add up to at least `alpha`.

    `scores` (..., objects) are logits; int64 (...), from 1 to objects. A sum that meets alpha, as float32, to the last
    bit reaches it; where rounding leaves the whole sum below alpha, all objects are needed.
    """
    return (sorted_mass(scores)[..., :-1] < alpha).sum(-1) + 1
