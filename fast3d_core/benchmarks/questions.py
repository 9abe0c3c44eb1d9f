"""The questions of benchmarks, by the benchmark's name: their files, and whether there are scenes for them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fast3d_core.benchmarks.registry import benchmark
from fast3d_core.data.annotations import Sample, Scenes
from fast3d_core.data.features import FEATURES_2D, FEATURES_3D
from fast3d_core.errors import DataError


def annotation_file(folder: Path, dataset: str, split: str = "val") -> Path:
    """Where a dataset's questions are."""
    return benchmark(dataset).file(folder, split)


def load_samples(folder: Path, dataset: str, split: str = "val") -> list[Sample]:
    """All questions of a dataset, in file order. Raises `DataError` for a malformed record."""
    return benchmark(dataset).samples(folder, split)


def on_detected_boxes(datasets: Iterable[str]) -> bool:
    """Whether any of these datasets is scored by boxes."""
    return any(benchmark(dataset).on_detected_boxes for dataset in datasets)


def check_samples(scenes: Scenes, samples: Sequence[Sample], split: str = "val") -> None:
    """Raises `DataError` as `check_sample_slots` and `check_sample_features` do."""
    check_sample_slots(scenes, samples, split)
    check_sample_features(scenes, samples, split)


def check_sample_slots(scenes: Scenes, samples: Sequence[Sample], split: str = "val") -> None:
    """Raises `DataError` if the split's boxes put other objects into a scene's slots, or are needed and damaged."""
    needed = on_detected_boxes({sample.dataset for sample in samples})
    scenes.check_slots(list(dict.fromkeys(sample.scene_id for sample in samples)), split, needed)


def check_sample_features(scenes: Scenes, samples: Sequence[Sample], split: str = "val") -> None:
    """Raises `DataError` if a sample's scene has no features; the message names the split's annotation file."""
    for sample in samples:
        if sample.scene_id not in scenes:
            raise DataError(
                f"{annotation_file(scenes.folder, sample.dataset, split).name}: record {sample.index} names scene "
                f"{sample.scene_id[:80]}, which has no features in {FEATURES_3D} or {FEATURES_2D}"
            )
