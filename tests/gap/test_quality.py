import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from fast3d_core.config import DATASETS
from fast3d_core.gap.quality import map_quality, top_f1
from tests.conftest import MINIATURE, RECORDED
from tests.maps.scores import load_maps


@pytest.mark.parametrize("dataset", DATASETS)
def test_recorded_validation_numbers(dataset):
    """The published network's maps against the extracted ones: KL and F1 as the published code computed them."""
    outputs = MINIATURE.parent / "outputs"
    predicted, targets = (
        torch.stack([load_maps(outputs / folder, dataset, 3)[i] for i in range(3)])
        for folder in ("pred_attn_maps", "infer_attn_maps")
    )
    expected = json.loads((RECORDED / "pred_metrics.json").read_text())[dataset]
    quality = map_quality(predicted, targets)
    assert quality.kl == pytest.approx(expected["loss"], abs=1e-5)
    assert quality.f1 == pytest.approx({k: expected[f"topk_{k}_f1_score"] for k in (5, 10, 20)})


def test_against_slow_obvious_ways():
    torch.manual_seed(0)
    logits, targets = torch.randn(20, 100).round(decimals=1), torch.rand(20, 100)
    quality = map_quality(logits, targets)
    expected = np.mean([spearmanr(a, b).statistic for a, b in zip(logits.numpy(), targets.numpy(), strict=True)])
    assert quality.rank_correlation == pytest.approx(expected, abs=1e-6)
    for k in (5, 10, 20):
        shares, best, f1 = [], [], []
        for one, target in zip(logits, targets, strict=True):
            top = set(one.topk(k).indices.tolist())
            wanted = set(target.topk(k).indices.tolist())
            shares.append(sum(target[i].item() for i in top) / target.sum().item())
            best.append(target.sort(descending=True).values[:k].sum().item() / target.sum().item())
            f1.append(len(top & wanted) / k)
        assert quality.mass[k] == pytest.approx(np.mean(shares), abs=1e-6)
        assert quality.best_mass[k] == pytest.approx(np.mean(best), abs=1e-6)
        assert quality.f1[k] == pytest.approx(np.mean(f1), abs=1e-6)
        assert top_f1(logits, targets, k).tolist() == pytest.approx(f1)


def test_the_target_itself_is_perfect():
    targets = torch.rand(4, 100) + 0.01
    quality = map_quality(targets.log(), targets)
    assert quality.kl == pytest.approx(0, abs=1e-6)
    assert set(quality.f1.values()) == {1.0}
    assert quality.rank_correlation == pytest.approx(1)
    assert quality.mass == pytest.approx(quality.best_mass)


def test_few_objects_and_constant_maps():
    quality = map_quality(torch.zeros(2, 7), torch.rand(2, 7))
    assert set(quality.f1) == {5}
    assert map_quality(torch.zeros(2, 3), torch.rand(2, 3)).f1 == {3: 1.0}
    assert quality.rank_correlation == 0
