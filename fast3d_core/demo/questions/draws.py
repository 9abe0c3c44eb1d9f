"""Random draws of the question generators."""

from typing import Any

import numpy as np

TRIES = 12  # draws before a generator gives up


def pick(rng: np.random.Generator, among: Any) -> Any:
    """One of a non-empty sequence."""
    return among[int(rng.random() * len(among))]


def pick_weighted(rng: np.random.Generator, shares: dict[Any, float]) -> Any:
    """One of the keys, each as often as its share; the shares add up to 1."""
    return list(shares)[int(np.searchsorted(np.cumsum(list(shares.values())), rng.random(), side="right"))]
