"""The methods' plans: against the recorded sets and ranks, against slow oracles, and their properties."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fast3d_core.errors import UsageError
from fast3d_core.plan import Plan, Units, View
from fast3d_core.pruning import FastV, Gap, PlanRequest, Random, Sap, Vanilla, top_tokens
from fast3d_core.pruning.options import MethodOptions, build_pruners, run_name
from fast3d_core.pruning.sap import objects_to_reach
from tests.conftest import RECORDED
from tests.maps.scores import load_maps

SEARCH = Path(__file__).parents[1] / "data" / "search_alpha"

scores = st.lists(st.floats(-20, 20, width=32), min_size=100, max_size=100).map(torch.tensor)

UNITS = Units(count=100, tokens=3)


def test_topk_ties_fall_as_recorded():
    """Ranks that cut through an object: the published top-k over the repeated map decides."""
    recorded = json.loads((RECORDED / "topk_repeat3_cpu.json").read_text())
    for name, ranks in recorded.items():
        dataset, index = name.split("/")
        scores = load_maps(RECORDED / "pred_attn_maps_syn", dataset, 3)[int(index)]
        for rank, tokens in ranks.items():
            assert top_tokens(scores, int(rank), 3).tolist() == sorted(tokens)


def test_sap_counts_as_recorded():
    recorded = json.loads((SEARCH / "ranks.json").read_text())
    for alpha, datasets in recorded.items():
        for dataset, entry in datasets.items():
            maps = load_maps(SEARCH / "pred_attn_maps", dataset, 200)
            counts = [objects_to_reach(maps[i], float(alpha)) for i in range(200)]
            assert counts == entry["ranks_by_index"]


def test_sap_edge_cases_as_recorded():
    """Uniform, one-hot and tied maps, where the last bit of a float32 sum decides."""
    maps = torch.load(SEARCH / "edge_maps.pt", weights_only=True)
    for name, alphas in json.loads((SEARCH / "edge_ranks.json").read_text()).items():
        for alpha, count in alphas.items():
            assert objects_to_reach(maps[name], float(alpha)) == count, (name, alpha)


@given(scores, st.integers(1, 300))
def test_gap_keeps_the_best(scores, keep):
    kept = Gap(layer=2, keep=keep).plan(PlanRequest("scanqa", 0, UNITS, scores)).stages[0].select
    repeated = scores.repeat_interleave(3)
    assert len(kept) == keep == len(set(kept.tolist()))
    assert kept.tolist() == sorted(kept.tolist())
    dropped = [i for i in range(300) if i not in set(kept.tolist())]
    if dropped:
        assert repeated[kept].min() >= repeated[dropped].max()
    if keep % 3 == 0 and len(set(scores.tolist())) == 100:
        assert torch.equal(kept.view(-1, 3) // 3, kept.view(-1, 3)[:, :1].expand(-1, 3) // 3)  # whole objects


@given(scores, st.floats(0.01, 0.99))
def test_sap_keeps_the_fewest_that_reach_alpha(scores, alpha):
    plan = Sap(alpha=alpha).plan(PlanRequest("scanqa", 0, UNITS, scores))
    (stage,) = plan.stages
    assert stage.layer == 0
    assert stage.count == len(stage.select) == 3 * objects_to_reach(scores, alpha)
    mass = torch.softmax(scores.double(), 0)
    objects = stage.select[::3] // 3
    assert mass[objects].sum() >= alpha - 1e-5
    if len(objects) > 1:
        assert mass[objects].sum() - mass[objects].min() < alpha + 1e-5


@given(scores, st.floats(0.01, 0.9), st.floats(0.01, 0.09))
def test_sap_keeps_more_for_a_larger_alpha(scores, alpha, more):
    assert objects_to_reach(scores, alpha + more) >= objects_to_reach(scores, alpha)


def test_sap_with_an_alpha_for_each_dataset():
    per_dataset = Sap({"scanqa": 0.3, "sqa3d": 0.7})
    scores = torch.linspace(-3, 3, 100)
    for dataset, alpha in per_dataset.alpha.items():
        request = PlanRequest(dataset, 0, UNITS, scores)
        assert per_dataset.plan(request).stages[0].select.tolist() == Sap(alpha).plan(request).stages[0].select.tolist()
    assert json.loads(json.dumps(asdict(per_dataset))) == {"alpha": {"scanqa": 0.3, "sqa3d": 0.7}}
    pruners = build_pruners(["sap"], MethodOptions(alphas=[per_dataset.alpha, 0.3, dict(per_dataset.alpha)]), 4, UNITS)
    assert pruners == [per_dataset, Sap(0.3)]
    assert [run_name(pruner) for pruner in pruners] == ["sap-per-dataset", "sap-alpha0.3"]


def test_random_depends_on_seed_dataset_and_index_only():
    def kept(seed, dataset, index):
        return Random(layer=2, keep=30, seed=seed).plan(PlanRequest(dataset, index, UNITS)).stages[0].select.tolist()

    assert kept(0, "scanqa", 7) == kept(0, "scanqa", 7)
    torch.manual_seed(5)
    torch.rand(3)
    assert kept(0, "scanqa", 7) == kept(0, "scanqa", 7)
    others = [kept(1, "scanqa", 7), kept(0, "sqa3d", 7), kept(0, "scanqa", 8)]
    assert all(other != kept(0, "scanqa", 7) for other in others)
    # Written down once: a draw must not change from one version to the next.
    assert kept(0, "scanqa", 7)[::3] == [3 * slot for slot in RANDOM_SCANQA_7]


RANDOM_SCANQA_7 = [9, 10, 47, 67, 76, 77, 81, 90, 93, 98]


def test_random_draws_objects_evenly():
    counts = torch.zeros(100)
    for index in range(2000):
        counts[Random(layer=0, keep=30).plan(PlanRequest("scanqa", index, UNITS)).stages[0].select[::3] // 3] += 1
    assert counts.sum() == 20000
    assert counts.min() > 140 and counts.max() < 265  # 200 expected, standard deviation 13.4


def test_fastv_asks_for_attention():
    plan = FastV(layer=2, keep=3).plan(PlanRequest("scanqa", 0, UNITS))
    (stage,) = plan.stages
    assert stage.look == ("last",) and stage.every_step
    row = torch.zeros(300)
    row[[7, 200, 31]] = torch.tensor([0.1, 0.3, 0.2])
    assert plan.resolve(0, View(torch.arange(300), row)).tolist() == [7, 31, 200]


def test_vanilla_keeps_all():
    assert Vanilla().plan(PlanRequest("scanqa", 0, UNITS)) == Plan(300)


def test_settings_that_cannot_be_meant():
    with pytest.raises(UsageError, match=r"alpha must lie in \(0, 1\], not 0"):
        Sap(alpha=0)
    with pytest.raises(UsageError, match=r"not 1\.5"):
        Sap(alpha=1.5)
    with pytest.raises(UsageError, match=r"alpha must lie in \(0, 1\], not 2"):
        Sap({"scanqa": 0.3, "sqa3d": 2})
    with pytest.raises(UsageError, match="K must be at least 1"):
        FastV(layer=0, keep=15)
