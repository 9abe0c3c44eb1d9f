"""A written world is read by everything that reads the released files, and scored by the real metrics."""

import json

import pytest
import torch

from fast3d_core.benchmarks import References, score
from fast3d_core.benchmarks.answers import clean_prediction
from fast3d_core.benchmarks.questions import check_samples, load_samples
from fast3d_core.config import DATASETS
from fast3d_core.data.annotations import Scenes, load_locations
from fast3d_core.demo.detection import detect
from fast3d_core.demo.questions import answer_ids
from fast3d_core.demo.rooms import make_room
from fast3d_core.demo.world import MEASURES, ceiling, questions, room_rng, write_world
from fast3d_core.errors import UsageError

ROOMS, QUESTIONS = 10, 120


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, "train", 4, 20, seed=1)
    write_world(folder, "val", ROOMS, QUESTIONS, seed=1)
    return folder


@pytest.mark.parametrize("task", DATASETS)
def test_is_read_by_fast3d(world, task):
    samples = load_samples(world, task)
    train = load_samples(world, task, "train")
    assert len(samples) > 0.95 * QUESTIONS and len(train) > 15
    scenes = Scenes(world)
    check_samples(scenes, samples)
    check_samples(scenes, train, "train")
    assert scenes.width_3d == scenes.width_2d == 64
    used = {sample.scene_id for sample in samples}
    assert len(used) == ROOMS and not used & {sample.scene_id for sample in train}
    locations = load_locations(world, "val", used)
    for scene in used:
        present = scenes[scene].present
        assert 20 <= present.sum() <= 100 and bool(present[: int(present.sum())].all())
        assert bool((locations[scene][present][:, 3:] > 0).all()) and not locations[scene][~present].any()
    assert all(sample.caption and not sample.ref_captions for sample in train)
    assert all(sample.caption is None for sample in samples)


def test_records_have_the_released_fields(world):
    fields = {
        "scanrefer_mask3d": {"ref_captions"},
        "multi3dref_mask3d": {"ref_captions", "eval_type"},
        "scan2cap_mask3d": {"ref_captions", "pred_id", "iou"},
        "scanqa": {"ref_captions"},
        "sqa3d": {"ref_captions", "sqa_type"},
    }
    for name, own in fields.items():
        for record in json.loads((world / f"{name}_val.json").read_text()):
            assert set(record) == {"scene_id", "obj_id", "prompt"} | own


@pytest.mark.parametrize("task", DATASETS)
def test_no_question_twice(world, task):
    samples = load_samples(world, task)
    assert len({(sample.scene_id, sample.prompt) for sample in samples}) == len(samples)
    if task == "scan2cap":
        keys = [f"{sample.scene_id}|{sample.obj_id}" for sample in samples]
        assert sorted(keys) == sorted(References(world).corpus)


def test_ceiling(world):
    results = ceiling(world)
    for task, answerers in results.items():
        perfect, chance, majority = (answerers[name][MEASURES[task]] for name in ("perfect", "chance", "majority"))
        assert perfect >= (75 if task == "scan2cap" else 90), task  # BLEU counts the scorer's own "sos" and "eos"
        assert chance < 0.5 * perfect and majority < 0.5 * perfect, task
    assert results["scanqa"]["perfect"]["[scanqa] Bleu_4"] > 99


@pytest.mark.parametrize("task", DATASETS)
def test_empty_answers_score_nothing(world, task):
    """Nothing but what the published scorers give away: slot 0, and scenes where nothing is meant."""
    samples = load_samples(world, task)
    references = References(world)
    empty = score(task, [sample.record("") for sample in samples], references, meteor=False)
    if task == "multi3dref":
        nothing = sum(not sample.ref_captions for sample in samples) / len(samples)
        assert empty.metrics[MEASURES[task]] == pytest.approx(nothing) and nothing < 0.4
    else:
        assert empty.metrics[MEASURES[task]] < 0.06


def test_training_answers_are_the_perfect_ones():
    """What is learnt is what scores."""
    rng = room_rng(3, "val", 0)
    room = make_room(rng, 40)
    detection = detect(room, rng)
    for task in DATASETS:
        for question in questions(room, detection, rng, task, 20):
            said, best = question.answer, question.refs
            if task == "multi3dref":
                assert said == answer_ids(sorted({int(detection.slots[target]) for target in best}))
            else:
                assert said == best[0] or clean_prediction(said) == best[0]


def test_same_seed_same_world(tmp_path):
    for name, seed in (("first", 1), ("second", 1), ("other", 2)):
        write_world(tmp_path / name, "val", 2, 10, seed)
    first, second, other = ({p.name: p for p in (tmp_path / name).iterdir()} for name in ("first", "second", "other"))
    for name, path in first.items():
        if path.suffix == ".json":
            assert path.read_bytes() == second[name].read_bytes()
        else:
            assert_equal(torch.load(path, weights_only=True), torch.load(second[name], weights_only=True))
    assert first["scanqa_val.json"].read_bytes() != other["scanqa_val.json"].read_bytes()


def assert_equal(first, second):
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    else:
        assert torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def test_splits_differ(tmp_path):
    """The test split is called val in its folder, and is another world than val of the same seed."""
    write_world(tmp_path / "val", "val", 2, 10, seed=1)
    write_world(tmp_path / "test", "test", 2, 10, seed=1)
    val, test = (load_samples(tmp_path / name, "scanqa") for name in ("val", "test"))
    assert {sample.prompt for sample in val} != {sample.prompt for sample in test}


def test_wrong_split(tmp_path):
    with pytest.raises(UsageError, match="train, val, test"):
        write_world(tmp_path, "validation", 2, 10, seed=1)
    with pytest.raises(UsageError, match="at least one room"):
        write_world(tmp_path, "val", 0, 10, seed=1)
