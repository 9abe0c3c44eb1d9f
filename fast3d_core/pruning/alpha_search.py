"""What a SAP alpha prunes, and the alpha that prunes a wanted share: exact, without a run of the LLM or a trial.

Pruning ratios here are percentages of objects, 100 (1 - kept / objects), mean over the samples of a dataset; of several
datasets, the mean of theirs, however many samples each has. SAP drops from layer 0 on, so this is what `fast3d eval`
measures as the ratio, too.
"""

import itertools
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fast3d_core.attention_map import AttentionMap
from fast3d_core.pruning.sap import Alpha, objects_to_reach, sorted_mass

_BINS = 20
_REFERENCE_OBJECTS = 10  # of the published script


@dataclass(frozen=True)
class DatasetOutcome:
    """What an alpha does to one dataset.

    Attributes:
        alpha: the dataset's; samples: number of them.
        ratio: objects pruned, in percent, mean over samples.
        kept_p5, kept_p50, kept_p95: percentiles of the objects that a sample keeps.
        histogram: samples by kept objects, see `Outcome.bin_edges`.
        reference_alpha: share of attention on the 10 best objects, mean over samples; the alpha to start from in a
            search by hand.
    """

    alpha: float
    samples: int
    ratio: float
    kept_p5: float
    kept_p50: float
    kept_p95: float
    histogram: tuple[int, ...]
    reference_alpha: float


@dataclass(frozen=True)
class Outcome:
    """What an alpha does.

    Attributes:
        ratio: mean of the datasets' ratios, in percent.
        bin_edges: bin i of the histograms counts samples that keep at least bin_edges[i] objects, and fewer than
            bin_edges[i + 1]; ascending integers from 1 to objects + 1.
        datasets: by name.
    """

    ratio: float
    bin_edges: tuple[int, ...]
    datasets: dict[str, DatasetOutcome]


@dataclass(frozen=True)
class Candidate:
    """An alpha and the ratio that it gives, in percent."""

    alpha: float
    ratio: float


def outcome(maps: Mapping[str, AttentionMap], alpha: Alpha) -> Outcome:
    """What `alpha` does to the `maps`: dataset -> those of its samples (samples, objects), at least one dataset and one
    sample in each, as many objects in all of them.

    Raises `DataError` where they are no logits.
    """
    logits = _logits(maps)
    objects = {scores.shape[1] for scores in logits.values()}.pop()
    bins = min(_BINS, objects)
    edges = tuple(1 + i * objects // bins for i in range(bins + 1))
    datasets = {}
    for dataset, scores in logits.items():
        own = alpha[dataset] if isinstance(alpha, Mapping) else alpha
        kept = objects_to_reach(scores, own).numpy()
        best = sorted_mass(scores)[:, min(_REFERENCE_OBJECTS, objects) - 1]
        p5, p50, p95 = (float(p) for p in np.percentile(kept, (5, 50, 95)))
        datasets[dataset] = DatasetOutcome(
            alpha=own,
            samples=len(scores),
            ratio=_ratio(float(kept.mean()), objects),
            kept_p5=p5,
            kept_p50=p50,
            kept_p95=p95,
            histogram=tuple(np.histogram(kept, edges)[0].tolist()),
            reference_alpha=float(best.double().mean()),
        )
    return Outcome(_mean([one.ratio for one in datasets.values()]), edges, datasets)


def nearest(maps: Mapping[str, AttentionMap], target: float) -> list[Candidate]:
    """The alphas in (0, 1] whose ratios are the nearest to `target` (percent): the least ratio above it or at it, then
    the greatest below; only one of them where no alpha gives the other.

    `maps` as for `outcome`. A whole interval of alphas gives the same ratio; of these, the one with the fewest decimals
    is named.

    A sample keeps one object more than it has cumulative sums (of 1 to objects - 1 objects) below alpha. So the mean
    over a dataset is read off one sorted list of all these sums, it changes nowhere but at them, and it never falls as
    alpha grows: the list of where any dataset changes is searched by bisection.
    """
    logits = _logits(maps)
    sums = [sorted_mass(scores)[:, :-1].flatten().sort().values for scores in logits.values()]
    changes = torch.cat([torch.zeros(1), *sums]).unique()
    starts = changes[changes < 1]  # from one start, exclusive, to the next, inclusive, every alpha does the same
    ends = torch.cat([starts[1:], torch.ones(1)])

    def ratio(interval: int) -> float:
        """What the alphas from starts[interval] to ends[interval] give; falls as `interval` grows."""
        below = [torch.searchsorted(own, ends[interval]).item() for own in sums]
        return _mean(
            [
                _ratio(1 + count / len(scores), scores.shape[1])
                for count, scores in zip(below, logits.values(), strict=True)
            ]
        )

    first_below = bisect_left(range(len(ends)), True, key=lambda interval: ratio(interval) < target)
    around = [i for i in (first_below - 1, first_below) if 0 <= i < len(ends)]
    return [Candidate(_roundest(starts[i].item(), ends[i].item()), ratio(i)) for i in around]


def within(ratio: float, target: float, tolerance: float) -> bool:
    """Whether `ratio` misses `target` by at most `tolerance` percent of the target."""
    return abs(ratio - target) <= target * tolerance / 100 + 1e-9  # a miss of 1.8 may come out as 1.8000000000000114


def _logits(maps: Mapping[str, AttentionMap]) -> dict[str, Tensor]:
    return {dataset: one.logits() for dataset, one in maps.items()}


def _ratio(kept: float, objects: int) -> float:
    return 100 * (1 - kept / objects)


def _mean(ratios: list[float]) -> float:
    return sum(ratios) / len(ratios)


def _roundest(start: float, end: float) -> float:
    """Of the numbers that are, as float32, above `start` and at most `end`, the one with the fewest decimals; of
    several with as few, the nearest to the middle. `start` < `end` are float32 numbers.
    """
    middle = (start + end) / 2
    for decimals in itertools.count():  # ends: the steps become shorter than the distance of `start` and `end`
        # The nearest to the middle may be `start` itself, or round to it, where its neighbour will do.
        best, step = round(middle, decimals), 10**-decimals
        for number in (best, round(best + step, decimals), round(best - step, decimals)):
            if start < torch.tensor(number, dtype=torch.float32).item() <= end:
                return number
    raise AssertionError("unreachable")
