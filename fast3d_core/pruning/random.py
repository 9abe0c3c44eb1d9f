"""Random objects: what any guided method has to beat."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from fast3d_core.fields import setting
from fast3d_core.pruning.base import Pruner, top_tokens
from fast3d_core.pruning.request import PlanRequest
from fast3d_core.runtime.draws import seed_of

if TYPE_CHECKING:
    from fast3d_core.plan import Plan


@dataclass(frozen=True)
class Random(Pruner):
    """Keeps objects drawn at random, the same from layer K to the end.

    It is the rule of GAP over a map of noise, so that it differs from GAP in nothing but the map. The draw depends on
    seed, dataset and sample index only: not on batches, processes or the order of samples.

    Settings:
        layer: K, from which on only the kept tokens are seen; keep: visual tokens kept; seed: of the draw.
    """

    layer: int
    keep: int
    seed: int = setting(0, "seed of the draw")
    name: ClassVar[str] = "random"
    colour: ClassVar[str] = "#7d848e"
    marker: ClassVar[str] = "X"

    def plan(self, request: PlanRequest) -> "Plan":
        import torch

        from fast3d_core.plan import Plan, Stage

        generator = torch.Generator().manual_seed(seed_of(self.seed, request.dataset, request.index))
        noise = torch.rand(request.units.count, generator=generator)
        kept = top_tokens(noise, self.keep, request.units.tokens)
        return Plan(request.units.visual, [Stage(self.layer, self.keep, kept)])
