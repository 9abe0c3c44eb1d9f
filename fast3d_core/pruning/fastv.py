"""FastV (arXiv 2403.06764): keep the tokens that the last prompt token attends to at layer K - 1."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from fast3d_core.errors import UsageError
from fast3d_core.pruning.base import Pruner
from fast3d_core.pruning.request import PlanRequest

if TYPE_CHECKING:
    from torch import Tensor

    from fast3d_core.plan import Plan, View


@dataclass(frozen=True)
class FastV(Pruner):
    """Keeps the tokens with the largest attention, averaged over heads, of the last prompt token at layer K - 1.

    Paper: FastV (arXiv 2403.06764). The fast engine fixes the set at prefill; the reference engine picks it again at
    every decoding step from the newest token of beam 0, as the published decoder does.

    Settings:
        layer: K, at least 1, from which on only the kept tokens are seen; keep: visual tokens kept.
    """

    layer: int
    keep: int
    name: ClassVar[str] = "fastv"
    title: ClassVar[str] = "FastV"
    colour: ClassVar[str] = "#d55e00"
    marker: ClassVar[str] = "^"
    source: ClassVar[str] = "arXiv 2403.06764"

    def __post_init__(self) -> None:
        if self.layer == 0:
            raise UsageError("fastv reads the attention of layer K - 1, so K must be at least 1 (--layer 1)")

    def plan(self, request: PlanRequest) -> "Plan":
        from fast3d_core.plan import Plan, Stage

        select = partial(_top_attended, self.keep)
        stage = Stage(self.layer, self.keep, select, look=("last",), every_step=True)
        return Plan(request.units.visual, [stage])


def _top_attended(keep: int, view: "View") -> "Tensor":
    import torch

    assert view.last is not None
    return view.offsets[torch.topk(view.last, keep).indices.sort().values]
