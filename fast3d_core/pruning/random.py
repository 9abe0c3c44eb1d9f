"""Random objects: what any guided method has to beat."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fast3d_core.plan import Plan
from fast3d_core.pruning.base import PlanRequest, Pruner, top_tokens
from fast3d_core.runtime.draws import seed_of


@dataclass(frozen=True)
class Random(Pruner):
    """The map-guided rule over a map of noise, so that it differs from GAP in nothing but the map.

    The draw depends on seed, dataset and sample index only: not on batches, processes or the order of samples.
    """

    layer: int
    keep: int
    seed: int = 0
    name: ClassVar[str] = "random"

    def plan(self, request: PlanRequest) -> Plan:
        generator = torch.Generator().manual_seed(seed_of(self.seed, request.dataset, request.index))
        noise = torch.rand(request.units.count, generator=generator)
        kept = top_tokens(noise, self.keep, request.units.tokens)
        return Plan(self.layer, request.units.visual, self.keep, kept)
