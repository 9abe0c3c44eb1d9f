"""Attention maps for samples, predicted by the GAP network: beforehand into files, or while an evaluation runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core.config import Config, need_checkpoint, need_path
from fast3d_core.data.annotations import Sample, Scenes, annotation_file, load_samples, locations_file
from fast3d_core.data.features import features_files
from fast3d_core.data.files import write_json
from fast3d_core.data.settings import fingerprint
from fast3d_core.data.tensors import fingerprints, network_fingerprint
from fast3d_core.devices import out_of_memory_says
from fast3d_core.errors import DataError
from fast3d_core.gap.checkpoint import load_gap
from fast3d_core.gap.inputs import GapBatch, gap_inputs
from fast3d_core.gap.ledger import PREDICTED_FILE, check_folder, is_ours, read_ledger
from fast3d_core.gap.maps import load_maps, map_file, save_predicted
from fast3d_core.gap.network import GapNetwork
from fast3d_core.gap.text import QuestionTokenizer, encoder_fingerprint
from fast3d_core.graphs import StepGraphs
from fast3d_core.progress import Progress

_RUN = "predict"


class Predictor:
    """The network with what it reads of some samples of a split.

    Attributes:
        network, inputs: what predicts, from what.

    Raises:
        DataError: files are missing or do not fit each other; see `load_gap`, `gap_inputs`.
    """

    def __init__(self, config: Config, samples: Sequence[Sample], split: str, scenes: Scenes, device: torch.device):
        self._checkpoint, self._split = config.gap.checkpoint, split
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
        UsageError: see `check_folder`.
        DataError: files are missing or do not fit each other, a map is not finite, or memory does not suffice.
    """
    if not restart:
        check_folder(folder, [(split, dataset) for dataset in datasets])
    annotations = need_path(config, "data.annotations")
    datasets = list(dict.fromkeys(datasets))
    samples = {dataset: load_samples(annotations, dataset, split) for dataset in datasets}
    sources = map_sources(config, annotations, split, datasets)
    known = read_ledger(folder, damaged_ok=restart)
    todo = [d for d in datasets if restart or not _is_done(known.get(f"{split}/{d}"), sources[d], folder, split, d)]
    if todo:
        progress.loading()
        scenes = Scenes(annotations, config.data.max_objects)
        predictor = Predictor(config, [s for d in todo for s in samples[d]], split, scenes, device)
        progress.loaded(())
    predictions = []
    begin = 0
    for dataset in datasets:
        path, count = map_file(folder, dataset, split), len(samples[dataset])
        if dataset not in todo:
            maps = load_maps(folder, dataset, count, objects=config.data.max_objects, split=split)
            predictions.append(Prediction(split, dataset, path, torch.stack([maps[i] for i in range(count)]), None))
            continue
        progress.start(_RUN, f"{split} {dataset}", count, 0)
        start, parts = time.perf_counter(), []
        for first in range(begin, begin + count, batch_size):
            rows = range(first, min(first + batch_size, begin + count))
            with out_of_memory_says(_out_of_memory(device, len(rows))):
                parts.append(predictor(rows))
            progress.advance(_RUN, f"{split} {dataset}", len(parts[-1]))
        begin += count
        logits, seconds = torch.cat(parts), time.perf_counter() - start
        save_predicted(path, logits)
        known[f"{split}/{dataset}"] = {**sources[dataset], "map": fingerprint(path, whole=True)}
        write_json(folder / PREDICTED_FILE, known)
        predictions.append(Prediction(split, dataset, path, logits, seconds))
    return predictions


def _is_done(entry: Any, sources: dict[str, Any], folder: Path, split: str, dataset: str) -> bool:
    same = isinstance(entry, dict) and {key: entry[key] for key in entry if key != "map"} == sources
    return same and is_ours(entry, map_file(folder, dataset, split))


def _out_of_memory(device: torch.device, batch_size: int) -> str:
    if batch_size == 1:
        return f"{device} is out of memory at batch size 1; free some"
    return (
        f"{device} is out of memory at batch size {batch_size}; datasets that are done are kept, "
        f"the same command continues with a smaller --batch-size, such as {batch_size // 2}"
    )


def map_sources(config: Config, annotations: Path, split: str, datasets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each dataset's maps depend on, as plain data: what the ledger says of them, without the map itself."""
    shared = [*features_files(annotations), locations_file(annotations, split)]
    sources = {
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
