"""Attention maps for samples, predicted by the GAP network: beforehand into files, or while an evaluation runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core.config import Config, need_path
from fast3d_core.data.annotations import (
    FEATURES_2D,
    FEATURES_3D,
    Sample,
    Scenes,
    annotation_file,
    load_samples,
    locations_file,
)
from fast3d_core.data.files import load_json, write_json
from fast3d_core.data.settings import fingerprint
from fast3d_core.errors import DataError
from fast3d_core.gap.checkpoint import load_gap
from fast3d_core.gap.inputs import GapInputs, gap_inputs
from fast3d_core.gap.maps import load_maps, map_file, save_predicted
from fast3d_core.gap.network import GapNetwork
from fast3d_core.gap.text import QuestionTokenizer
from fast3d_core.progress import Progress

PREDICTED_FILE = "predicted.json"
_RUN = "predict"


class Predictor:
    """The network with what it reads of some samples of a split.

    Raises:
        DataError: files are missing or do not fit each other; see `load_gap`, `gap_inputs`.
    """

    def __init__(self, config: Config, samples: Sequence[Sample], split: str, scenes: Scenes, device: torch.device):
        self.network = load_gap(config, device)
        tokenizer = QuestionTokenizer(config.gap.text_encoder)
        self.inputs = gap_inputs(config, samples, split, scenes, tokenizer, self.network, device)

    def __call__(self, rows: Sequence[int]) -> Tensor:
        """Logits (samples, objects) float32, on the CPU, of the samples at these positions."""
        return predict(self.network, self.inputs, torch.tensor(rows)).cpu()

    def flops(self, row: int) -> float:
        """Of predicting the map of the sample at this position."""
        return self.network.flops(self.inputs.tokens(row))


@torch.inference_mode()
def predict(network: GapNetwork, inputs: GapInputs, rows: Tensor) -> Tensor:
    """Logits (samples, objects) float32, on the device."""
    return network(*inputs.batch(rows)).float()


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
    scenes: Scenes | None = None,
) -> list[Prediction]:
    """Predicts the maps of all samples of these datasets into `folder`, in the published form, a file a dataset.

    A dataset that the same network predicted there before, from the same files, is read back.
    """
    annotations = need_path(config, "data.annotations")
    samples = {dataset: load_samples(annotations, dataset, split) for dataset in datasets}
    sources = {dataset: _sources(config, annotations, split, dataset) for dataset in datasets}
    known = _known(folder)
    todo = [d for d in datasets if known.get(f"{split}/{d}") != sources[d] or not map_file(folder, d, split).exists()]
    if todo:
        progress.loading()
        scenes = scenes or Scenes(annotations, config.data.max_objects)
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
            parts.append(predictor(range(first, min(first + batch_size, begin + count))))
            progress.advance(_RUN, f"{split} {dataset}", len(parts[-1]))
        begin += count
        logits, seconds = torch.cat(parts), time.perf_counter() - start
        if not torch.isfinite(logits).all():
            raise DataError(f"{config.gap.checkpoint} predicts NaN or infinity for {split} {dataset}; train it again")
        save_predicted(path, logits)
        known[f"{split}/{dataset}"] = sources[dataset]
        write_json(folder / PREDICTED_FILE, known)
        predictions.append(Prediction(split, dataset, path, logits, seconds))
    return predictions


def _sources(config: Config, annotations: Path, split: str, dataset: str) -> dict[str, Any]:
    """What a dataset's maps depend on."""
    files = [annotation_file(annotations, dataset, split), annotations / FEATURES_3D, annotations / FEATURES_2D]
    files += [locations_file(annotations, split), need_path(config, "gap.checkpoint")]
    return {"heads": config.gap.heads, "files": {path.name: fingerprint(path) for path in files}}


def _known(folder: Path) -> dict[str, Any]:
    path = folder / PREDICTED_FILE
    if not path.exists():
        return {}
    content = load_json(path, "maps.predicted")
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged; delete it and predict again")
    return content
