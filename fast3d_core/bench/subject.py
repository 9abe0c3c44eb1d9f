"""What is benchmarked: a scene model with its GAP network, and batches of questions about scenes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fast3d_core.config import Config
from fast3d_core.data.annotations import Sample, Scene, load_locations
from fast3d_core.evaluation.questions import Questions
from fast3d_core.gap.checkpoint import load_gap
from fast3d_core.gap.inputs import GapInputs, check_fit
from fast3d_core.gap.network import GapNetwork
from fast3d_core.gap.predictor import MapPredictor
from fast3d_core.gap.text import QuestionTokenizer
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


class Gap:
    """The network that predicts maps, and what it reads questions with."""

    def __init__(self, network: GapNetwork, tokenizer: QuestionTokenizer):
        self.network, self.tokenizer = network, tokenizer
        self.release()

    def release(self) -> None:
        """Gives back captured passes; they are made anew where they are needed."""
        self._predict = MapPredictor(self.network)

    def maps(self, batch: Batch) -> Tensor:
        """Logits (samples, objects) float32, on the CPU; everything from text on is done anew."""
        device = next(self.network.parameters()).device
        inputs = GapInputs(batch.samples, batch.scenes, batch.locations, self.tokenizer, device)
        return self._predict(inputs.batch(torch.arange(len(inputs)))).cpu()

    def flops(self, batch: Batch) -> list[float]:
        """Of each sample's map."""
        _, lengths = self.tokenizer([sample.prompt for sample in batch.samples])
        return [self.network.flops(tokens) for tokens in lengths]

    @property
    def read_bytes(self) -> int:
        """Bytes of the weights that a pass reads; of the word embeddings it looks up rows."""
        embedding = self.network.text_encoder.embeddings.word_embeddings.weight
        return sum(p.numel() * p.element_size() for p in self.network.parameters() if p is not embedding)


@dataclass(frozen=True)
class Subject:
    """A model, and endless questions for it.

    Attributes:
        name: what was asked for.
        gap: None where no method needs maps.
        batch: (size, number) -> the batch of that number; the same whenever it is asked for, in objects that nobody has
            seen.
        questions: what the questions are, in words.
    """

    name: str
    model: SceneModel
    gap: Gap | None
    batch: Callable[[int, int], Batch]
    questions: str

    def batches(self, size: int, numbers: Iterable[int]) -> list[Batch]:
        """Those batches, in new objects, but a scene that several ask about is one object: what is cached for it by the
        first serves the others, as where a whole dataset is answered."""
        batches, scenes = [self.batch(size, number) for number in numbers], dict[str, Scene]()
        return [replace(one, scenes={n: scenes.setdefault(n, s) for n, s in one.scenes.items()}) for one in batches]


def real_subject(config: Config, device: torch.device, progress: Progress, *, gap: bool) -> Subject:
    """The model, the GAP network (if `gap`) and the questions that a config names.

    Batches take a question of each dataset in turn, so that all of them are alike; a dataset that ends begins anew.

    Raises:
        DataError: files are missing, or do not fit each other or the memory.
    """
    questions = Questions(config, config.data.datasets)
    names = {sample.scene_id for samples in questions.samples.values() for sample in samples}
    locations = dict[str, Tensor]()
    predicting = None
    if gap:
        network = load_gap(config, device)
        check_fit(config, questions.scenes, network)
        locations = load_locations(questions.folder, "val", names, questions.units.count)
        predicting = Gap(network, QuestionTokenizer(config.gap.text_encoder))
    model = load_model(config, questions.scenes, device, progress)
    datasets = list(questions.samples.values())

    def batch(size: int, number: int) -> Batch:
        samples = []
        for turn in range(number * size, (number + 1) * size):
            dataset = datasets[turn % len(datasets)]
            samples.append(dataset[turn // len(datasets) % len(dataset)])
        scenes = {sample.scene_id: replace(questions.scenes[sample.scene_id]) for sample in samples}
        return Batch(samples, scenes, {name: locations[name] for name in scenes} if gap else {})

    return Subject(str(config.source), model, predicting, batch, f"of {', '.join(questions.samples)}, in turn")
