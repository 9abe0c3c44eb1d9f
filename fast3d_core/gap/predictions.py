"""`fast3d predict`: maps of several splits and datasets, compared with the extracted ones where these are there."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fast3d_core.config import Config
from fast3d_core.errors import DataError
from fast3d_core.gap.predictor import Prediction, predict_maps
from fast3d_core.gap.quality import MapQuality, map_quality
from fast3d_core.maps.ledger import check_folder
from fast3d_core.maps.targets import has_targets, load_targets
from fast3d_core.runtime.progress import Progress


@dataclass(frozen=True)
class Targets:
    """Extracted maps to compare with: their folder, which map of an entry, and which layers it averages."""

    folder: Path
    key: str = "a_map"
    layers: str = "all"


@dataclass(frozen=True)
class Compared:
    """Predicted maps, and how well they agree with the extracted ones; None where there are none."""

    prediction: Prediction
    quality: MapQuality | None

    @property
    def name(self) -> str:
        """Split and dataset."""
        return f"{self.prediction.split} {self.prediction.dataset}"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "split": self.prediction.split,
            "dataset": self.prediction.dataset,
            "samples": len(self.prediction.logits),
            "seconds": self.prediction.seconds,
            "file": str(self.prediction.path),
            "quality": asdict(self.quality) if self.quality else None,
        }


def predict(
    config: Config,
    splits: Sequence[str],
    datasets: Sequence[str],
    folder: Path,
    device: torch.device,
    progress: Progress,
    *,
    batch_size: int = 64,
    restart: bool = False,
) -> list[Prediction]:
    """Predicts the maps of all splits and datasets into `folder`; what is done is read back.

    Raises:
        UsageError: see `check_folder`, unless `restart` replaces what is there.
        DataError: see `predict_maps`.
    """
    if not restart:
        check_folder(folder, [(split, name) for split in splits for name in datasets])
    return [
        prediction
        for split in splits
        for prediction in predict_maps(
            config, split, datasets, folder, device, progress, batch_size=batch_size, restart=restart
        )
    ]


def compare(
    config: Config,
    predictions: Sequence[Prediction],
    targets: Targets,
    log: Callable[[str], None] = lambda _: None,
) -> list[Compared]:
    """The predictions beside the extracted maps; `log` is called with what was not compared, and why."""
    missing: list[str] = []
    compared = [Compared(one, _quality(config, one, targets, missing, log)) for one in predictions]
    if missing:
        log(f"not compared: {targets.folder} has no extracted maps of {', '.join(missing)}")
    return compared


def _quality(
    config: Config, one: Prediction, targets: Targets, missing: list[str], log: Callable[[str], None]
) -> MapQuality | None:
    """None where nothing was extracted that it can be compared with; then `missing` gets its name."""
    name, folder = f"{one.split} {one.dataset}", targets.folder
    try:
        if not has_targets(folder, one.split, one.dataset):
            missing.append(name)
            return None
        count = len(one.logits)
        maps = load_targets(config, folder, one.split, one.dataset, count, key=targets.key, layers=targets.layers)
    except DataError as error:  # of an interrupted extraction, say; the maps are predicted all the same
        log(f"{name}: not compared: {error}")
        return None
    return map_quality(one.logits, maps)
