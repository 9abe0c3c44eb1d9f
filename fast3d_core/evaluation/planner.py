"""From samples, their attention maps and a method to plans: the one place that makes a `PlanRequest`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fast3d_core.attention_map import AttentionMap
from fast3d_core.data.annotations import Sample
from fast3d_core.evaluation.context import Context
from fast3d_core.plan import Plan, Units
from fast3d_core.pruning import PlanRequest, Pruner


@dataclass(frozen=True)
class Planner:
    """Makes the plans of a batch, each from the method, the sample and its map alone.

    Attributes:
        pruner: the method; units: of every prompt.
        context: where the method may find layers, boxes, labels and features; each is read when it is asked for.
        maps: finds the maps (samples, objects) of a batch; None where the method needs none, or they are given.
        gap_flops: what predicting the map of a sample takes, where `maps` predicts.
    """

    pruner: Pruner
    units: Units
    context: Context
    maps: Callable[[Sequence[Sample]], AttentionMap] | None = None
    gap_flops: Callable[[Sample], float] | None = None

    def __call__(self, samples: Sequence[Sample], maps: AttentionMap | None = None) -> list[Plan]:
        """The plans of these samples.

        Args:
            maps: theirs, (samples, objects); None: those that `self.maps` finds.

        Raises `DataError` where the method takes the softmax of logits and the maps are shares.
        """
        if maps is None and self.maps is not None:
            maps = self.maps(samples)
        return [self.pruner.plan(self._request(sample, maps and maps[row])) for row, sample in enumerate(samples)]

    def _request(self, sample: Sample, own: AttentionMap | None) -> PlanRequest:
        """What the method may look at."""
        if own is not None and self.pruner.needs_logits:
            own.logits()  # raises where they are none
        scores, kind = (None, None) if own is None else (own.scores, own.kind)
        return PlanRequest(sample.dataset, sample.index, self.units, scores, kind=kind, **self.context.of(sample))
