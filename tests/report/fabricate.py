"""Run folders of known scores, without a model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fast3d_core.evaluation.result import (
    DatasetStats,
    Environment,
    Pruning,
    Result,
    SampleCost,
    Spread,
    Timing,
    save_result,
)

Hits = dict[str, Sequence[float]]


def stats_of(hits: Hits, order: Sequence[int] | None = None, first: int = 0) -> dict[str, DatasetStats]:
    """A score of 0..1 a sample becomes a row of statistics, also of BLEU's: 4 n-grams of each order, all or none hit.

    Sample i has the key "q<first + i>"; `order` permutes the rows.
    """
    made = {}
    for dataset, values in hits.items():
        array = np.asarray(values, dtype=np.float64)
        ones = np.ones_like(array)
        bleu = dataset in ("scan2cap", "scanqa")
        columns = [4 * array] * 4 + [4 * ones] * 6 if bleu else [array, ones]
        rows = np.stack(columns, axis=1)
        keys = [f"q{first + i}" for i in range(len(array))]
        chosen = range(len(array)) if order is None else order
        made[dataset] = DatasetStats([keys[i] for i in chosen], rows[list(chosen)])
    return made


def make_run(
    folder: Path,
    name: str,
    method: str | None,
    hits: Hits,
    *,
    ratio: float = 0.0,
    flops: float = 2e12,
    gap_flops: float | None = None,
    device: str = "cpu: x",
    order: Sequence[int] | None = None,
    first: int = 0,
) -> Path:
    """A complete run folder; `method` None makes scored predictions, which have no cost."""
    measured = (
        {}
        if method is None
        else {
            "pruning": Pruning(ratio, ratio, Spread(1, 1, 1, 1), 300 - 3 * ratio),
            "cost": SampleCost(flops * 0.75, flops * 0.25, gap_flops, 1.0, 1.0, 1.0),
            "timing": Timing(10.0, 1e13 / flops),
            "environment": Environment(device, 1, None, "3", {}, None),
        }
    )
    stats = stats_of(hits, order, first)
    samples = {dataset: len(entry.keys) for dataset, entry in stats.items()}
    save_result(folder / name, Result(name, method, {}, None, samples, {}, {}, **measured), stats)
    return folder / name


def bernoulli(mean: float, n: int, seed: int) -> list[float]:
    """Exactly round(mean x n) hits among n, shuffled."""
    hits = np.zeros(n)
    hits[: round(mean * n)] = 1
    return np.random.default_rng(seed).permutation(hits).tolist()
