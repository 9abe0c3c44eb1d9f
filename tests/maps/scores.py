"""The numbers of map files, of whatever kind."""

from pathlib import Path
from typing import Any

from torch import Tensor

from fast3d_core.maps.published import read_maps


def load_maps(folder: Path, dataset: str, samples: int | None = None, **options: Any) -> dict[int, Tensor]:
    """Sample index -> (objects,) float32; for the options see `read_maps`."""
    return dict(read_maps(folder, dataset, samples, **options).scores)
