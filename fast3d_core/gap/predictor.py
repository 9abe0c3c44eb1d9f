"""Attention maps for samples, predicted by the GAP network: beforehand into files, or while an evaluation runs."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core import __version__
from fast3d_core.benchmarks.questions import annotation_file, check_samples, load_samples
from fast3d_core.config import Config, need_checkpoint, need_path
from fast3d_core.data.annotations import Sample, Scene, Scenes, load_locations, locations_file
from fast3d_core.data.features import features_files
from fast3d_core.errors import DataError
from fast3d_core.files.fingerprints import fingerprint
from fast3d_core.files.locks import sole_use
from fast3d_core.files.tensors import fingerprints, network_fingerprint
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.gap.checkpoint import load_gap
from fast3d_core.gap.inputs import GapBatch, GapInputs, check_fit
from fast3d_core.gap.network import GapNetwork
from fast3d_core.gap.text import QuestionTokenizer, encoder_files, encoder_fingerprint
from fast3d_core.maps.kind import AttentionMap
from fast3d_core.maps.ledger import (
    PREDICTED_FILE,
    LedgerEntry,
    check_folder,
    depends_on,
    is_written,
    read_ledger,
    settle,
    write_known,
)
from fast3d_core.maps.published import map_file, predicted_content, read_maps
from fast3d_core.runtime.devices import out_of_memory_says
from fast3d_core.runtime.graphs import StepGraphs
from fast3d_core.runtime.progress import Progress
from fast3d_core.text import shown

_RUN = "predict"


class MapPredictor:
    """The GAP network with its tokenizer: whoever predicts maps does it through this.

    On a GPU, batches of a shape that came before are one captured CUDA graph, not 700 launches.

    Attributes:
        network, tokenizer: what predicts, and what it reads questions with; device: where.

    Args:
        name: what errors call the network.
    """

    def __init__(self, network: GapNetwork, tokenizer: QuestionTokenizer, name: str = "the GAP network"):
        self.network, self.tokenizer, self._name = network, tokenizer, name
        self.device = next(network.parameters()).device
        self.release()

    @classmethod
    def from_config(cls, config: Config, scenes: Scenes, device: torch.device) -> "MapPredictor":
        """The network that the config names, for these scenes.

        Raises `DataError` where files are missing or do not fit each other; see `load_gap`, `check_fit`.
        """
        network = load_gap(config, device)
        check_fit(config, scenes, network)
        return cls(network, QuestionTokenizer(config.gap.text_encoder), str(config.gap.checkpoint))

    def release(self) -> None:
        """Drops captured graphs and their memory; they are captured again where they are needed."""
        self._graphs = None
        if self.device.type == "cuda":
            network = self.network
            self._graphs = StepGraphs(lambda inputs, _: network(**inputs), self.device, warm_steps=1)

    def inputs(
        self, samples: Sequence[Sample], scenes: Scenes | Mapping[str, Scene], locations: Mapping[str, Tensor]
    ) -> GapInputs:
        """What the network reads of these samples, on its device.

        Args:
            locations: scene -> (objects, 6) boxes.
        """
        return GapInputs(samples, scenes, locations, self.tokenizer, self.device)

    def inputs_of_split(self, samples: Sequence[Sample], split: str, scenes: Scenes) -> GapInputs:
        """The same with the boxes of a split's files. Raises `DataError` where a scene lacks features or boxes."""
        check_samples(scenes, samples, split)
        names = {sample.scene_id for sample in samples}
        return self.inputs(samples, scenes, load_locations(scenes.folder, split, names, scenes.objects))

    def __call__(self, inputs: GapInputs, samples: Sequence[Sample]) -> AttentionMap:
        """Logits (samples, objects), on the CPU, of some of the samples that the inputs are of.

        Raises `DataError` where one is not finite.
        """
        logits = self._logits(inputs.batch(torch.tensor([inputs.row(sample) for sample in samples]))).cpu()
        if not (finite := logits.isfinite().all(-1)).all():
            wrong = samples[int((~finite).nonzero()[0])]
            raise DataError(
                f"{self._name} predicts NaN or infinity for {wrong.scene_id} and the question {shown(wrong.prompt)}; "
                "train it again"
            )
        return AttentionMap("logits", logits)

    @torch.inference_mode()
    def _logits(self, batch: GapBatch) -> Tensor:
        """Logits (samples, objects) float32, on the device."""
        inputs = batch._asdict()
        return (self._graphs(inputs) if self._graphs else self.network(**inputs)).float()

    def flops(self, inputs: GapInputs, sample: Sample) -> float:
        """Of predicting the map of one of the samples that the inputs are of."""
        return self.network.flops(inputs.tokens(inputs.row(sample)))

    @property
    def read_bytes(self) -> int:
        """Bytes of the weights that a pass reads; of the word embeddings it looks up rows."""
        embedding = self.network.text_encoder.embeddings.word_embeddings.weight
        return sum(p.numel() * p.element_size() for p in self.network.parameters() if p is not embedding)


@dataclass(frozen=True)
class Prediction:
    """The maps of a dataset.

    Attributes:
        logits: (samples, objects) float32.
        seconds: what predicting them took; None where they were read back.
    """

    split: str
    dataset: str
    path: Path
    logits: Tensor
    seconds: float | None


def predict_maps(
    config: Config,
    split: str,
    datasets: Sequence[str],
    folder: Path,
    device: torch.device,
    progress: Progress,
    *,
    batch_size: int = 64,
    restart: bool = False,
) -> list[Prediction]:
    """Predicts the maps of all samples of these datasets into `folder`, in the published form, a file a dataset.

    A dataset that the same network predicted there before, from the same files, is read back.

    Args:
        restart: predict all of them, and replace whatever maps are there.

    Raises:
        UsageError: see `sole_use`, `check_folder`.
        DataError: files are missing or do not fit each other, a map is not finite, or memory does not suffice.
    """
    with sole_use(folder, other="give --maps another folder"):
        if not restart:
            check_folder(folder, [(split, dataset) for dataset in datasets])
        annotations = need_path(config, "data.annotations")
        datasets = list(dict.fromkeys(datasets))
        files = WatchedFiles()
        files.watch(annotation_file(annotations, dataset, split) for dataset in datasets)
        files.watch(_shared_files(config, annotations, split))
        files.watch(encoder_files(config.gap.text_encoder))
        samples = {dataset: load_samples(annotations, dataset, split) for dataset in datasets}
        sources = map_sources(config, annotations, split, datasets)
        known = read_ledger(folder, damaged_ok=restart)
        todo = [d for d in datasets if restart or not _is_done(known.get(f"{split}/{d}"), sources[d], folder, split, d)]
        if todo:
            progress.loading()
            scenes = Scenes(annotations, config.data.max_objects)
            predictor = MapPredictor.from_config(config, scenes, device)
            inputs = predictor.inputs_of_split([s for d in todo for s in samples[d]], split, scenes)
            progress.loaded(())
        files.check()  # what the ledger will say of the maps is what was read
        predictions = []
        for dataset in datasets:
            path, count = map_file(folder, dataset, split), len(samples[dataset])
            if dataset not in todo:
                settle(folder / PREDICTED_FILE, known, f"{split}/{dataset}", path)
                maps = read_maps(folder, dataset, count, objects=config.data.max_objects, split=split)
                predictions.append(Prediction(split, dataset, path, maps.all().scores, None))
                continue
            progress.start(_RUN, f"{split} {dataset}", count, 0)
            start = time.perf_counter()
            predict = partial(predictor, inputs)
            logits = _predicted(predict, samples[dataset], batch_size, f"{split} {dataset}", device, progress)
            seconds = time.perf_counter() - start
            entry, content = sources[dataset], predicted_content(logits)
            write_known(folder / PREDICTED_FILE, known, f"{split}/{dataset}", entry, path, content)
            predictions.append(Prediction(split, dataset, path, logits, seconds))
    return predictions


def _predicted(
    predict: Callable[[Sequence[Sample]], AttentionMap],
    samples: Sequence[Sample],
    batch_size: int,
    what: str,
    device: torch.device,
    progress: Progress,
) -> Tensor:
    """Logits (samples, objects) of these samples, batch by batch."""
    parts = []
    for first in range(0, len(samples), batch_size):
        batch = samples[first : first + batch_size]
        with out_of_memory_says(_out_of_memory(device, len(batch))):
            parts.append(predict(batch).logits())
        progress.advance(_RUN, what, len(batch))
    return torch.cat(parts)


def _is_done(entry: LedgerEntry | None, sources: dict[str, Any], folder: Path, split: str, dataset: str) -> bool:
    same = entry is not None and depends_on(entry) == sources
    return same and is_written(entry, map_file(folder, dataset, split))


def _out_of_memory(device: torch.device, batch_size: int) -> str:
    if batch_size == 1:
        return f"{device} is out of memory at batch size 1; free some"
    return (
        f"{device} is out of memory at batch size {batch_size}; datasets that are done are kept, "
        f"the same command continues with a smaller --batch-size, such as {batch_size // 2}"
    )


def _shared_files(config: Config, annotations: Path, split: str) -> list[Path]:
    """The files that all maps of a split depend on, but for the text encoder's."""
    return [*features_files(annotations), locations_file(annotations, split), need_checkpoint(config, "gap.checkpoint")]


def map_sources(config: Config, annotations: Path, split: str, datasets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each dataset's maps depend on, as plain data: what the ledger says of them, without the map itself."""
    shared = [*features_files(annotations), locations_file(annotations, split)]
    sources = {
        "fast3d_version": __version__,
        "heads": config.gap.heads,
        "max_objects": config.data.max_objects,
        "checkpoint": network_fingerprint(need_checkpoint(config, "gap.checkpoint")),
        "text_encoder": encoder_fingerprint(config.gap.text_encoder),
        "files": fingerprints(shared),
    }
    return {
        dataset: {**sources, "annotations": fingerprint(annotation_file(annotations, dataset, split))}
        for dataset in datasets
    }
