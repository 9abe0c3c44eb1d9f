"""Attention maps for samples, predicted by the GAP network: beforehand into files, or while an evaluation runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core import __version__
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import Config, need_checkpoint, need_path
from fast3d_core.data.annotations import Sample, Scenes, locations_file
from fast3d_core.data.features import features_files
from fast3d_core.errors import DataError
from fast3d_core.files.fingerprints import fingerprint
from fast3d_core.files.locks import sole_use
from fast3d_core.files.tensors import fingerprints, network_fingerprint
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.gap.checkpoint import load_gap
from fast3d_core.gap.inputs import GapBatch, gap_inputs
from fast3d_core.gap.network import GapNetwork
from fast3d_core.gap.text import QuestionTokenizer, encoder_files, encoder_fingerprint
from fast3d_core.maps.ledger import PREDICTED_FILE, check_folder, is_written, read_ledger, settle, write_known
from fast3d_core.maps.published import load_maps, map_file, predicted_content
from fast3d_core.runtime.devices import out_of_memory_says
from fast3d_core.runtime.graphs import StepGraphs
from fast3d_core.runtime.progress import Progress

_RUN = "predict"


class Predictor:
    """The network with what it reads of some samples of a split.

    Attributes:
        network, inputs: what predicts, from what; device: where.

    Raises:
        DataError: files are missing or do not fit each other; see `load_gap`, `gap_inputs`.
    """

    def __init__(self, config: Config, samples: Sequence[Sample], split: str, scenes: Scenes, device: torch.device):
        self._checkpoint, self._split, self.device = config.gap.checkpoint, split, device
        self.network = load_gap(config, device)
        self._predict = MapPredictor(self.network)
        tokenizer = QuestionTokenizer(config.gap.text_encoder)
        self.inputs = gap_inputs(config, samples, split, scenes, tokenizer, self.network, device)

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """Logits (samples, objects) float32, on the CPU, of the samples at these positions.

        Raises `DataError` when one is not finite.
        """
        logits = self._predict(self.inputs.batch(torch.tensor(rows))).cpu()
        if wrong := [row for row, one in zip(rows, logits.isfinite().all(-1), strict=True) if not one]:
            sample = self.inputs.samples[wrong[0]]
            raise DataError(
                f"{self._checkpoint} predicts NaN or infinity for {self._split} {sample.dataset}, "
                f"sample {sample.index}; train it again"
            )
        return logits

    def flops(self, row: int) -> float:
        """Of predicting the map of the sample at this position."""
        return self.network.flops(self.inputs.tokens(row))


class MapPredictor:
    """Passes of the network; on a GPU batches of a shape that came before are one CUDA graph, not 700 launches."""

    def __init__(self, network: GapNetwork):
        self.network = network
        device = next(network.parameters()).device
        self._graphs = None
        if device.type == "cuda":
            self._graphs = StepGraphs(lambda inputs, _: network(**inputs), device, warm_steps=1)

    @torch.inference_mode()
    def __call__(self, batch: GapBatch) -> Tensor:
        """Logits (samples, objects) float32, on the device."""
        inputs = batch._asdict()
        return (self._graphs(inputs) if self._graphs else self.network(**inputs)).float()


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
            predictor = Predictor(config, [s for d in todo for s in samples[d]], split, scenes, device)
            progress.loaded(())
        files.check()  # what the ledger will say of the maps is what was read
        predictions, begin = [], 0
        for dataset in datasets:
            path, count = map_file(folder, dataset, split), len(samples[dataset])
            if dataset not in todo:
                settle(folder / PREDICTED_FILE, known, f"{split}/{dataset}", path)
                maps = load_maps(folder, dataset, count, objects=config.data.max_objects, split=split)
                predictions.append(Prediction(split, dataset, path, torch.stack([maps[i] for i in range(count)]), None))
                continue
            progress.start(_RUN, f"{split} {dataset}", count, 0)
            start = time.perf_counter()
            logits = _predicted(predictor, range(begin, begin + count), batch_size, f"{split} {dataset}", progress)
            seconds = time.perf_counter() - start
            begin += count
            entry, content = sources[dataset], predicted_content(logits)
            write_known(folder / PREDICTED_FILE, known, f"{split}/{dataset}", entry, path, content)
            predictions.append(Prediction(split, dataset, path, logits, seconds))
    return predictions


def _predicted(predictor: Predictor, rows: range, batch_size: int, what: str, progress: Progress) -> Tensor:
    """Logits (samples, objects) of the samples at these positions, batch by batch."""
    parts = []
    for first in range(rows.start, rows.stop, batch_size):
        batch = range(first, min(first + batch_size, rows.stop))
        with out_of_memory_says(_out_of_memory(predictor.device, len(batch))):
            parts.append(predictor(batch))
        progress.advance(_RUN, what, len(batch))
    return torch.cat(parts)


def _is_done(entry: Any, sources: dict[str, Any], folder: Path, split: str, dataset: str) -> bool:
    same = isinstance(entry, dict) and {key: entry[key] for key in entry if key not in ("map", "replaces")} == sources
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
