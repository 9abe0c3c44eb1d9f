"""The intervals: coverage, pairing, and corpus scores."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast3d_core.benchmarks import References, score
from fast3d_core.report import bootstrap
from fast3d_core.report.bootstrap import draw_counts, interval, resample

RECORDED = Path(__file__).parents[1] / "data" / "metrics"


def rows(hits: np.ndarray) -> np.ndarray:
    return np.stack([hits, np.ones_like(hits)], axis=1).astype(np.float64)


@pytest.mark.parametrize("mean", [0.1, 0.5])
def test_interval_covers_a_known_mean_about_95_times_in_100(mean):
    rng = np.random.default_rng(1)
    covered, repetitions = 0, 400
    for repetition in range(repetitions):
        (sampled,) = resample("scanrefer", [rows(rng.random(200) < mean)], 400, seed=repetition)
        low, high = interval(sampled.draws)
        covered += low <= 100 * mean <= high
    assert 0.92 <= covered / repetitions <= 0.98  # 0.95 +- 3 standard errors of 400 repetitions


def test_paired_interval_covers_a_known_difference_and_is_narrower_than_an_unpaired_one():
    rng = np.random.default_rng(2)
    covered, repetitions, widths = 0, 300, []
    for repetition in range(repetitions):
        one = rng.random(200) < 0.6
        two = one & (rng.random(200) < 0.9)  # the mean falls by 6 points, on shared samples
        a, b = resample("sqa3d", [rows(one), rows(two)], 400, seed=repetition)
        low, high = interval(b.draws - a.draws)
        covered += low <= -6 <= high
        (apart,) = resample("sqa3d", [rows(two)], 400, seed=repetition + 1_000_000)
        unpaired = interval(apart.draws - a.draws)
        widths.append((high - low) / (unpaired[1] - unpaired[0]))
    assert 0.91 <= covered / repetitions <= 0.985
    assert np.mean(widths) < 0.6


@pytest.mark.parametrize("chunk", [1, 7 * 50, 1 << 20])
def test_counts_draw_every_sample_alike_and_depend_on_seed_dataset_and_n_only(monkeypatch, chunk):
    monkeypatch.setattr(bootstrap, "_CHUNK", chunk)
    chunks = list(draw_counts("scanqa", 7, 1000, seed=3))
    assert all(counts.size <= max(chunk, 7) for counts in chunks)
    counts = np.concatenate(chunks)
    assert counts.shape == (1000, 7) and (counts.sum(1) == 7).all()
    assert np.abs(counts.mean(0) - 1).max() < 0.15  # 5 standard errors
    assert counts.var() == pytest.approx(6 / 7, abs=0.1)  # binomial(7, 1/7)
    again = np.concatenate(list(draw_counts("scanqa", 7, 1000, seed=3)))
    assert (counts == again).all()
    assert (counts != np.concatenate(list(draw_counts("scanqa", 7, 1000, seed=4)))).any()
    assert (counts != np.concatenate(list(draw_counts("sqa3d", 7, 1000, seed=3)))).any()


def test_bootstrap_of_bleu_sums_is_bleu_of_the_resampled_sentences():
    records = json.loads((RECORDED / "preds" / "preds_scanqa.json").read_text())[:12]
    references = References(RECORDED / "annotations")
    stats = score("scanqa", records, references, meteor=False).stats
    (sampled,) = resample("scanqa", [stats], 100, seed=5)
    counts = np.concatenate(list(draw_counts("scanqa", len(records), 100, seed=5))).astype(int)
    scores = []
    for drawn in counts[:20]:
        resampled = [record for record, times in zip(records, drawn, strict=True) for _ in range(times)]
        scores.append(100 * score("scanqa", resampled, references, meteor=False).metrics["[scanqa] Bleu_4"])
    assert len(set(scores)) > 5
    np.testing.assert_allclose(sampled.draws[:20], scores, rtol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_draws_stay_in_range_and_equal_runs_have_equal_draws(hits, seed):
    one, two = resample("multi3dref", [rows(np.array(hits)), rows(np.array(hits))], 200, seed)
    assert (one.draws == two.draws).all()
    assert one.score == pytest.approx(100 * np.mean(hits)) and one.n == len(hits)
    low, high = interval(one.draws)
    assert 100 * min(hits) - 1e-9 <= low <= high <= 100 * max(hits) + 1e-9


def test_undefined_draws_widen_the_interval_and_too_many_leave_none():
    draws = np.arange(1000.0)
    full = interval(draws)
    draws[500:510] = np.nan
    low, high = interval(draws)
    assert low < full[0] < full[1] < high
    draws[500:560] = np.nan
    assert interval(draws) == (None, None)
