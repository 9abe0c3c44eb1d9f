"""The one place where plans of a batch are made: maps with their kind, and all that a method may look at."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from fast3d_core.attention_map import AttentionMap
from fast3d_core.config import load_config
from fast3d_core.errors import DataError
from fast3d_core.evaluation.context import Context
from fast3d_core.evaluation.planner import Planner
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.plan import Plan, Units
from fast3d_core.pruning import Gap, Pruner, Sap, Vanilla
from tests.conftest import MINIATURE
from tests.maps.scores import load_maps

CPU = torch.device("cpu")
UNITS = Units(100, 3)
TARGETS = MINIATURE.parent / "outputs" / "infer_attn_maps"


@pytest.fixture(scope="module")
def questions():
    return Questions(load_config(MINIATURE), ["scanqa", "sqa3d"])


@dataclass(frozen=True)
class Spy(Pruner):
    """Prunes nothing, and keeps the requests."""

    name: ClassVar[str] = "spy"
    seen: ClassVar[list] = []

    def plan(self, request):
        self.seen.append(request)
        return Plan(request.units.visual)


def kept(plan):
    return plan.stages[0].select.tolist()


def test_a_batch_is_planned_by_its_samples_maps(questions):
    config = load_config(MINIATURE)
    planner = questions.planner(Job("gap", Gap(2, 15), config.maps.predicted))
    for batch in questions.batches(2):
        maps = load_maps(config.maps.predicted, batch[0].dataset, 3)
        alone = [Planner(Gap(2, 15), UNITS, Context())([s], AttentionMap("logits", maps[s.index][None])) for s in batch]
        assert [kept(plan) for plan in planner(batch)] == [kept(plan) for (plan,) in alone]
    assert planner.gap_flops is None


@pytest.mark.parametrize("kind", ["shares", None])
def test_maps_that_may_be_shares_reach_no_method_that_takes_logits(questions, kind):
    (batch, *_) = questions.batches(3)
    maps = AttentionMap(kind, torch.rand(len(batch), 100))
    with pytest.raises(DataError, match="takes the softmax of logits"):
        Planner(Sap(0.5), UNITS, Context())(batch, maps)
    assert len(Planner(Gap(2, 15), UNITS, Context())(batch, maps)) == len(batch)  # it only ranks


def test_a_job_on_extracted_maps_has_to_say_that_they_are_shares(questions):
    with pytest.raises(DataError, match="holds shares of attention.*--map-kind shares"):
        questions.planner(Job("sap", Sap(0.5), TARGETS))
    planner = questions.planner(Job("sap", Sap(0.5), TARGETS, map_kind="shares"))
    (batch, *_) = questions.batches(3)
    assert planner.maps(batch).kind == "logits"
    assert {plan.stages[0].count for plan in planner(batch)} != {150}  # what the softmax of shares would keep


def test_live_maps_are_even_until_there_is_a_device(questions):
    """Then they are those that the network predicts, as into files."""
    config, (batch, *_) = load_config(MINIATURE), questions.batches(3)
    job = Job("sap", Sap(0.5), live=True)
    before = questions.planner(job)
    assert {plan.stages[0].count for plan in before(batch)} == {150} and before.gap_flops is None
    planner = questions.planner(job, CPU)
    maps, files = planner.maps(batch), load_maps(config.maps.predicted, "scanqa", 3)
    assert maps.kind == "logits"
    torch.testing.assert_close(maps.scores, torch.stack([files[s.index] for s in batch]), atol=1e-4, rtol=0)
    assert all(planner.gap_flops(sample) > 1e6 for sample in batch)
    assert questions.planner(job, CPU).maps.func is planner.maps.func  # the network is loaded once


def test_a_method_finds_all_that_is_known_of_a_sample(questions):
    Spy.seen.clear()
    (batch, *_) = questions.batches(3)
    questions.planner(Job("spy", Spy()))(batch)
    for request, sample in zip(Spy.seen, batch, strict=True):
        scene = questions.scenes[sample.scene_id]
        assert (request.dataset, request.index, request.question) == (sample.dataset, sample.index, sample.prompt)
        assert request.units == UNITS and request.layers == 4
        assert request.boxes.shape == (100, 6) and len(request.labels) == 100
        assert torch.equal(request.features_3d, scene.features_3d)
        assert torch.equal(request.features_2d, scene.features_2d)
        with pytest.raises(DataError, match="no attention map"):
            _ = request.scores


def test_without_maps_nothing_is_read(questions):
    planner = questions.planner(Job("vanilla", Vanilla()))
    assert planner.maps is None and all(plan.stages == () for plan in planner(questions.batches(3)[0]))
