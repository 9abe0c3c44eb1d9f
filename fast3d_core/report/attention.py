"""Attention in figures: how many objects SAP keeps, and how well GAP's maps find the attention that was extracted."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fast3d_core.benchmarks import benchmark_names
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import Config
from fast3d_core.errors import DataError
from fast3d_core.gap.quality import MapQuality, map_quality
from fast3d_core.maps.kind import AttentionMap
from fast3d_core.maps.origin import load_known_maps
from fast3d_core.maps.published import map_file
from fast3d_core.maps.targets import has_targets, load_targets
from fast3d_core.report.answers import Answers
from fast3d_core.report.remarks import Remarks


@dataclass(frozen=True)
class KeptObjects:
    """How many objects a run kept of the samples of a dataset: `samples[n]` samples kept n objects."""

    run: str
    dataset: str
    samples: list[int]


@dataclass(frozen=True)
class Agreement:
    """Predicted against extracted attention over a dataset.

    Attributes:
        quality: see `MapQuality`.
        predicted: share of the extracted attention on the n objects predicted to have most, n = 0, 1, ...; mean over
            samples. extracted: the same for the n objects that do have most, the best that any prediction could do.
    """

    dataset: str
    quality: MapQuality
    predicted: list[float]
    extracted: list[float]


def kept_objects(run: str, answers: Answers, objects: int) -> list[KeptObjects]:
    """The distribution of kept objects in each dataset that a run answered."""
    counts: dict[str, Counter[int]] = {}
    for (dataset, _), answer in answers.items():
        counts.setdefault(dataset, Counter())[objects if answer.kept is None else len(answer.kept)] += 1
    return [
        KeptObjects(run, dataset, [counts[dataset][n] for n in range(objects + 1)])
        for dataset in benchmark_names()
        if dataset in counts
    ]


def agreements(config: Config, datasets: Sequence[str], remarks: Remarks) -> list[Agreement]:
    """Predicted against extracted maps of the datasets that have both; `remarks` gets to know about the others."""
    found = []
    for dataset in datasets:
        try:
            if not map_file(config.maps.predicted, dataset).exists():
                raise DataError(f"{config.maps.predicted} has no predicted maps; make them with `fast3d predict`")
            if not has_targets(config.maps.targets, "val", dataset):
                raise DataError(f"{config.maps.targets} has no extracted maps; make them with `fast3d extract`")
            samples = len(load_samples(config.data.annotations, dataset))
            maps = logits_to_show(config, dataset, samples)
            targets = load_targets(config, config.maps.targets, "val", dataset, samples)
        except DataError as error:
            remarks.add(f"predicted and extracted attention are not compared: {error}", dataset)
            continue
        found.append(agreement(dataset, maps.logits(), targets))
    return found


def logits_to_show(config: Config, dataset: str, samples: int) -> AttentionMap:
    """The predicted maps (samples, objects) of a dataset as logits; shares, which a run may have followed, by their
    logarithm.

    Raises `DataError`, see `load_known_maps`; or where it is not known what the maps hold.
    """
    questions, objects = annotation_file(config.data.annotations, dataset), config.data.max_objects
    maps, _ = load_known_maps(
        config.maps.predicted, dataset, questions, samples, objects=objects, what="maps.predicted"
    )
    return maps.as_logits(maps.kind).all()


def agreement(dataset: str, logits: Tensor, targets: Tensor) -> Agreement:
    """Compares logits with targets, both (samples, objects)."""
    shares = targets.double() / targets.double().sum(-1, keepdim=True)
    return Agreement(
        dataset,
        map_quality(logits, targets),
        _covered(shares, logits.argsort(dim=-1, descending=True)),
        _covered(shares, targets.argsort(dim=-1, descending=True)),
    )


def _covered(shares: Tensor, order: Tensor) -> list[float]:
    """What the first n objects in `order` hold, n = 0, 1, ...; mean over samples."""
    covered = shares.gather(-1, order).cumsum(-1).mean(0)
    return [0.0, *(round(float(value), 5) for value in covered)]
