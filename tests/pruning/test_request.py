"""What a method may look at: where it comes from, that nothing else is read, and what is said of what is not there."""

import pytest
import torch

from fast3d_core import load_config
from fast3d_core.asking.asker import Asker
from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.data.annotations import load_labels, load_locations
from fast3d_core.data.detections import Detections
from fast3d_core.errors import DataError
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.pruning import Gap, PlanRequest, Pruner, Sap, Vanilla
from tests.conftest import MINIATURE
from tests.pruning.default_methods import UNITS

PARTS = ("scores", "layers", "question", "boxes", "labels", "features_3d", "features_2d")


@pytest.mark.parametrize("name", PARTS)
def test_what_is_not_there_is_named(name):
    with pytest.raises(DataError) as caught:
        getattr(PlanRequest("scanqa", 7, UNITS), name)
    message = str(caught.value)
    assert message.startswith(f"a method asks for {name}, but sample 7 of scanqa comes with no ")
    gives = {"scores": "needs_map", "layers": "model.llm", "question": "data.annotations"}
    assert gives.get(name, "data.annotations") in message and "\n" not in message


def test_parts_are_read_once_and_only_when_asked_for():
    read = []

    def labels():
        read.append("labels")
        return ["chair"]

    request = PlanRequest("scanqa", 0, UNITS, labels=labels, boxes=lambda: read.append("boxes"), question="what?")
    assert (read, request.question) == ([], "what?")
    assert request.labels == request.labels == ["chair"] and read == ["labels"]
    with pytest.raises(DataError, match="asks for boxes"):  # what reads them found none
        _ = request.boxes


def test_shares_are_no_logits():
    scores = torch.rand(100)
    assert Sap(0.5).plan(PlanRequest("scanqa", 0, UNITS, scores=scores, kind="logits"))
    with pytest.raises(DataError, match="shares of attention, where logits are asked for; .* needs_logits = True"):
        Sap(0.5).plan(PlanRequest("scanqa", 0, UNITS, scores=scores, kind="shares"))
    assert Gap(1, 9).plan(PlanRequest("scanqa", 0, UNITS, scores=scores, kind="shares"))


class Looking(Pruner):
    """Remembers what it is shown."""

    name = "looking"

    def __init__(self):
        object.__setattr__(self, "seen", [])

    def plan(self, request):
        self.seen.append(request)
        return Vanilla().plan(request)


def check_parts(request, sample, folder, layers=4):
    boxes = load_locations(folder, "val", [sample.scene_id])[sample.scene_id]
    names = load_labels(folder, "val", [sample.scene_id])[sample.scene_id]
    assert (request.layers, request.question) == (layers, sample.prompt)
    assert torch.equal(request.boxes, boxes)
    assert list(request.labels) == [*names, *[None] * (100 - len(names))]
    assert request.features_3d.shape[0] == request.features_2d.shape[0] == 100
    assert request.features_3d.any() and not request.features_3d.equal(request.features_2d)


def test_an_evaluation_gives_all_but_the_map():
    config, looking = load_config(MINIATURE), Looking()
    questions = Questions(config, ["scanqa"])
    (batch,) = questions.batches(3)
    questions.planner(Job("looking", looking))(batch)
    for request, sample in zip(looking.seen, batch, strict=True):
        check_parts(request, sample, config.data.annotations)
        with pytest.raises(DataError, match="asks for scores"):
            _ = request.scores


def test_an_evaluation_reads_no_boxes_that_no_method_asks_for(monkeypatch):
    config = load_config(MINIATURE)
    questions = Questions(config, ["scanqa"])  # which reads them itself, to check slots
    monkeypatch.setattr("fast3d_core.data.detections.load_boxes", lambda *_: pytest.fail("boxes were read"))
    for job in (Job("vanilla", Vanilla()), Job("gap", Gap(1, 9), config.maps.predicted)):
        questions.planner(job)(questions.batches(3)[0])


def test_a_question_of_ones_own_gives_all():
    looking = Looking()
    config = load_config(MINIATURE)
    asker = Asker(config)
    sample = load_samples(config.data.annotations, "scanqa")[0]
    reply = asker.ask(sample.prompt, sample.scene_id, looking, "plain")
    (request,) = looking.seen
    check_parts(request, sample, config.data.annotations)
    assert reply.prompt == sample.prompt


def test_a_scene_without_boxes(files):
    folder = files / "annotations"
    known = Detections(folder, splits=("val",))
    assert "scene0011_00" in known and known.count("nowhere") == 0
    with pytest.raises(DataError, match="no scannet_mask3d_val_attributes.pt has boxes of scene nowhere; get it by"):
        known.labels("nowhere")
