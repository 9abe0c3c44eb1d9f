"""What is benchmarked: a scene model with its GAP network, and batches of questions about scenes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fast3d_core.config import Config
from fast3d_core.data.annotations import Sample, Scene, load_locations
from fast3d_core.data.detections import Detections
from fast3d_core.evaluation.context import Context
from fast3d_core.evaluation.questions import Questions
from fast3d_core.gap.predictor import MapPredictor
from fast3d_core.maps.kind import AttentionMap
from fast3d_core.models.base import SceneModel
from fast3d_core.models.loading import load_model
from fast3d_core.runtime.progress import Progress


@dataclass(frozen=True)
class Batch:
    """Questions, and the scenes they are about.

    Attributes:
        scenes: by name; what is cached for a scene is found by the very object.
        locations: scene -> (objects, 6) boxes.
    """

    samples: list[Sample]
    scenes: dict[str, Scene]
    locations: dict[str, Tensor]


def predicted_maps(gap: MapPredictor, batch: Batch) -> AttentionMap:
    """The maps of a batch; everything from text on is done again, as for questions that nobody has seen."""
    return gap(gap.inputs(batch.samples, batch.scenes, batch.locations), batch.samples)


def gap_flops(gap: MapPredictor, batch: Batch) -> list[float]:
    """What predicting the map of each sample of a batch takes."""
    inputs = gap.inputs(batch.samples, batch.scenes, batch.locations)
    return [gap.flops(inputs, sample) for sample in batch.samples]


@dataclass(frozen=True)
class Subject:
    """A model, and endless questions for it.

    Attributes:
        name: what was asked for.
        gap: predicts maps; None where no method needs any.
        batch: (size, number) -> the batch of that number; the same whenever it is asked for, in objects that nobody has
            seen.
        questions: what the questions are, in words.
        detections: boxes and labels of real scenes; None of generated ones, which have the boxes of their batch alone.
    """

    name: str
    model: SceneModel
    gap: MapPredictor | None
    batch: Callable[[int, int], Batch]
    questions: str
    detections: Detections | None = None

    def context(self, batch: Batch) -> Context:
        """What methods may look at, beside maps, of a batch's samples."""
        known = self.detections
        return Context(
            layers=self.model.shape.layers,
            features=batch.scenes.__getitem__,
            boxes=known.boxes if known else batch.locations.__getitem__,
            labels=known.labels if known else None,
        )

    def batches(self, size: int, numbers: Iterable[int]) -> list[Batch]:
        """Those batches, in new objects, but a scene of several questions is one object: what is cached for it by the
        first serves the others, as where a whole dataset is answered."""
        batches, scenes = [self.batch(size, number) for number in numbers], dict[str, Scene]()
        return [replace(one, scenes={n: scenes.setdefault(n, s) for n, s in one.scenes.items()}) for one in batches]


def real_subject(config: Config, device: torch.device, progress: Progress, *, gap: bool) -> Subject:
    """The model, the GAP network (if `gap`) and the questions that a config names.

    Batches take a question of each dataset in turn, so that all of them are alike; a dataset that ends starts over.

    Raises:
        DataError: files are missing, or do not fit each other or the memory.
    """
    questions = Questions(config, config.data.datasets)
    names = {sample.scene_id for samples in questions.samples.values() for sample in samples}
    locations = dict[str, Tensor]()
    predicting = None
    if gap:
        predicting = MapPredictor.from_config(config, questions.scenes, device)
        locations = load_locations(questions.folder, "val", names, questions.units.count)
    model = load_model(config, questions.scenes, device, progress)
    datasets = list(questions.samples.values())

    def batch(size: int, number: int) -> Batch:
        samples = []
        for turn in range(number * size, (number + 1) * size):
            dataset = datasets[turn % len(datasets)]
            samples.append(dataset[turn // len(datasets) % len(dataset)])
        scenes = {sample.scene_id: replace(questions.scenes[sample.scene_id]) for sample in samples}
        return Batch(samples, scenes, {name: locations[name] for name in scenes} if gap else {})

    described = f"of {', '.join(questions.samples)}, in turn"
    detections = Detections(questions.folder, questions.units.count, ("val",))
    return Subject(str(config.source), model, predicting, batch, described, detections)
