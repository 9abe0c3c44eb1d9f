"""Intervals by the percentile bootstrap (Efron & Tibshirani 1993, chapter 13).

A dataset's samples are drawn with replacement, as many as there are; the score of each such resample is the headline
metric of the summed statistics, so BLEU is resampled as the corpus score it is. Runs over the same samples are scored
on the same resamples, so the difference of their draws is a paired one. The interval runs from the 2.5th to the 97.5th
percentile of the draws. It is too narrow for few samples (below about 30).
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fast3d_core.benchmarks import DATASETS, benchmark

CONFIDENCE = 95
_CHUNK = 1 << 20  # drawn samples held at a time: 8 MB as int64, 8 MB as counts


@dataclass(frozen=True)
class Sampled:
    """A headline score in percent: of n samples, and of every resample of them, `draws` (resamples,)."""

    n: int
    score: float
    draws: np.ndarray


def resample(dataset: str, stats: Sequence[np.ndarray], resamples: int, seed: int) -> list[Sampled]:
    """The scores of several runs on the same resamples.

    `stats` has one (n, k) array a run, n >= 1, with row i the same sample in all of them. The draws depend on the
    dataset, n and `seed` only.
    """
    sums: list[list[np.ndarray]] = [[] for _ in stats]
    for counts in draw_counts(dataset, len(stats[0]), resamples, seed):
        for parts, run in zip(sums, stats, strict=True):
            parts.append(counts @ run)  # a product per run: equal runs get equal bits, so their difference is 0
    headline = benchmark(dataset).headline_of
    return [
        Sampled(len(run), 100 * float(headline(run.sum(0))), 100 * headline(np.concatenate(parts)))
        for run, parts in zip(stats, sums, strict=True)
    ]


def draw_counts(dataset: str, n: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of n samples is drawn: chunks (some, n) float64 of multinomial counts, `resamples` rows in all."""
    number = DATASETS.index(dataset) if dataset in DATASETS else zlib.crc32(dataset.encode())
    rng = np.random.default_rng([seed, number])
    rows = max(1, _CHUNK // n)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def interval(draws: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """The percentile interval of draws (resamples,).

    An undefined (NaN) draw counts as lying beyond either end; with too many of them there is no interval.
    """
    tail = (100 - CONFIDENCE) / 2
    low = np.percentile(np.where(np.isnan(draws), -np.inf, draws), tail, method="lower")
    high = np.percentile(np.where(np.isnan(draws), np.inf, draws), 100 - tail, method="higher")
    return (float(low), float(high)) if np.isfinite(low) and np.isfinite(high) else (None, None)
