import json

import pytest
import torch

from fast3d_core.asking.rooms import Rooms
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import load_config
from fast3d_core.convert import convert, plan_conversions
from fast3d_core.data.annotations import Scenes, load_labels, load_locations, locations_file
from fast3d_core.data.features import FEATURES_2D, FEATURES_3D
from fast3d_core.errors import DataError
from fast3d_core.evaluation.questions import Questions
from tests.conftest import MINIATURE
from tests.fuzz.readers import Nobody

ANNOTATIONS = MINIATURE.parent / "annotations"


def test_samples_carry_the_published_fields():
    sample = load_samples(ANNOTATIONS, "scan2cap")[1]
    record = sample.record("a chair")
    assert record == {
        "scene_id": "scene0015_00", "gt_id": 0, "pred_id": 15, "qid": 0, "prompt": sample.prompt, "pred": "a chair",
        "ref_captions": ["This is a black chair. It is in front of the desk."], "type_info": 0,
    }  # fmt: skip
    assert [s.type_info for s in load_samples(ANNOTATIONS, "sqa3d")] == [0, 1, 2]
    assert [s.type_info for s in load_samples(ANNOTATIONS, "multi3dref")] == ["st_w_d", "mt", "zt_wo_d"]


def test_scenes_are_padded_to_all_slots():
    scenes = Scenes(ANNOTATIONS)
    scene = scenes["scene0015_00"]
    assert scene.features_3d.shape == (100, 64)
    assert scene.present.sum() == 87
    assert not scene.features_3d[87:].any()
    partly = scenes["scene0025_00"]  # lacks both features of 40, the 3D one of 4, the 2D one of 7
    assert [int(s) for s in torch.where(~partly.present)[0]] == [40]
    assert not partly.features_3d[4].any() and partly.features_2d[4].any()
    assert partly.features_3d[7].any() and not partly.features_2d[7].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "should hold a list"),
        ([1], "record 0 is not a question"),
        ([{"scene_id": "s"}], "record 0 is not a question \\(has no 'prompt'"),
        ([{"scene_id": 3, "prompt": "x"}], "3 should be text"),
        ([{"scene_id": "s", "prompt": "x", "obj_id": "chair"}], "record 0 is not a question"),
        ([{"scene_id": "scene0015_00", "prompt": "x", "ref_captions": 5}], "record 0 is not a question"),
        ([{"scene_id": "s", "prompt": "\ud83d"}], "not valid JSON .*half of a surrogate pair"),
        ([{"scene_id": "s", "prompt": "x", "ref_captions": ["\ud83d"]}], "half of a surrogate pair"),
        ([{"scene_id": "s", "prompt": "x", "caption": "\ud83d"}], "half of a surrogate pair"),
        ([{"scene_id": "scene0404_00", "prompt": "x"}], "record 0 names scene scene0404_00, which has no features"),
    ],
)
def test_bad_annotations(files, content, message):
    annotation_file(files / "annotations", "scanqa").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        Questions(load_config(files / "fast3d.yaml"), ["scanqa"])


def test_truncated_json(files):
    path = annotation_file(files / "annotations", "scanqa")
    path.write_text(path.read_text()[:100])
    with pytest.raises(DataError, match="scanqa_val.json is not valid JSON"):
        load_samples(files / "annotations", "scanqa")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"scene0011_00_00": torch.zeros(64), "scene0011_00_01": torch.zeros(32)}, "mixes features of widths"),
        ({"scene": torch.zeros(64)}, "should be named like"),
        ({"scene0011_00_00": [1.0]}, "should be named like"),
        ({}, "should hold a dict of features"),
        (torch.zeros(3), "should hold a dict of features"),
    ],
)
@pytest.mark.parametrize("name", [FEATURES_3D, FEATURES_2D])
def test_bad_features(files, name, features, message):
    torch.save(features, files / "annotations" / name)
    with pytest.raises(DataError, match=message):
        Scenes(files / "annotations")


@pytest.mark.parametrize("name", [FEATURES_3D, FEATURES_2D])
def test_a_feature_that_is_not_finite_is_named(files, name):
    path = files / "annotations" / name
    features = torch.load(path, weights_only=True)
    key = list(features)[3]
    features[key][5] = torch.inf
    torch.save(features, path)
    with pytest.raises(DataError, match=f"{name}: {key} holds NaN or infinity"):
        Scenes(files / "annotations")[key.rpartition("_")[0]]


def test_missing_feature_file_names_the_nearest(files):
    (files / "annotations" / FEATURES_2D).rename(files / "annotations" / "scannet_mask3d_videofeat.pt")
    with pytest.raises(DataError, match=r"videofeats\.pt does not exist; did you mean scannet_mask3d_videofeat\.pt"):
        Scenes(files / "annotations")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("obj_id", [3, 4], "obj_id: this list should be a whole number"),
        ("obj_id", None, "obj_id: None should be a whole number"),
        ("obj_id", True, "obj_id: True should be a whole number"),
        ("obj_id", 3.5, "obj_id: 3.5 should be a whole number"),
        ("pred_id", "chair", "pred_id: 'chair' should be a whole number"),
        ("scene_id", 11, "scene_id: 11 should be text"),
        ("prompt", ["what?"], "prompt: this list should be text"),
        ("qid", {}, "qid: this dict should be a text or a number"),
        ("sqa_type", [1], "sqa_type: this list should be a text or a number"),
        ("caption", [], "caption: this list should be a text or a number"),
        ("ref_captions", "brown", "ref_captions: 'brown' should be a list"),
        ("ref_captions", ["brown", ["dark"]], "ref_captions: this list in it should be a text or a number"),
    ],
)
def test_a_field_of_another_kind_is_named(files, field, value, told):
    path = annotation_file(files / "annotations", "sqa3d")
    content = json.loads(path.read_text())
    content[2][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        load_samples(files / "annotations", "sqa3d")
    assert str(caught.value) == f"{path}: record 2 is not a question ({told})"


def test_numbers_written_as_text_are_numbers(files):
    path = annotation_file(files / "annotations", "scanrefer")
    content = json.loads(path.read_text())
    path.write_text(json.dumps([record | {"obj_id": str(record["obj_id"])} for record in content]))
    assert [sample.obj_id for sample in load_samples(files / "annotations", "scanrefer")] == [
        record["obj_id"] for record in content
    ]


@pytest.mark.parametrize("dataset", ["scanrefer", "scan2cap"])
def test_a_question_about_no_object(files, dataset):
    """It would be scored against object 0. A test split tells neither objects nor answers."""
    path = annotation_file(files / "annotations", dataset)
    content = json.loads(path.read_text())
    del content[1]["obj_id"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"record 1 is not a question \(has no 'obj_id'\)"):
        load_samples(files / "annotations", dataset)
    path.write_text(json.dumps([{k: r[k] for k in ("scene_id", "prompt")} for r in content]))
    assert {sample.obj_id for sample in load_samples(files / "annotations", dataset)} == {-1}


def test_labels_are_cut_to_the_boxes(tmp_path):
    """Chat-Scene's script writes all labels, and at most 100 boxes."""
    names = [f"thing {i}" for i in range(123)]
    for boxes in (0, 7, 100, 123):
        locs = torch.rand(boxes, 6) if boxes else []
        torch.save({"s": {"objects": names, "locs": locs}}, tmp_path / "scannet_mask3d_val_attributes.pt")
        assert load_labels(tmp_path, "val", ["s"]) == {"s": names[: min(boxes, 100)]}
        assert load_labels(tmp_path, "val", ["s"], 120) == {"s": names[: min(boxes, 120)]}
    torch.save({"s": {"objects": names[:6], "locs": torch.rand(7, 6)}}, tmp_path / "scannet_mask3d_val_attributes.pt")
    with pytest.raises(DataError, match="does not name the boxes of scene s"):
        load_labels(tmp_path, "val", ["s"])


@pytest.mark.parametrize("other", ["scene0011_00_7", "scene0011_00_007"])
@pytest.mark.parametrize("name", [FEATURES_3D, FEATURES_2D])
def test_two_names_for_one_slot(files, name, other):
    path = files / "annotations" / name
    features = torch.load(path, weights_only=True)
    wanted = Scenes(files / "annotations")["scene0011_00"]
    torch.save({**features, other: features["scene0011_00_07"].double()}, path)  # the same numbers
    again = Scenes(files / "annotations")["scene0011_00"]
    assert again.features_3d.equal(wanted.features_3d) and again.features_2d.equal(wanted.features_2d)
    torch.save({**features, other: features["scene0011_00_08"]}, path)
    message = f"{name} holds 'scene0011_00_07' and '{other}', two features of one object"
    with pytest.raises(DataError, match=message):
        Scenes(files / "annotations")
    with pytest.raises(DataError, match=message):
        convert(plan_conversions(load_config(files / "fast3d.yaml"), ["features"]), Nobody())
    assert not path.with_suffix(".safetensors").exists()


def with_obj_ids(files, ids):
    path = locations_file(files / "annotations", "val")
    boxes = torch.load(path, weights_only=True)
    boxes["scene0015_00"]["obj_ids"] = ids
    torch.save(boxes, path)
    return load_config(files / "fast3d.yaml")


@pytest.mark.parametrize(
    "ids", [list(range(100)), torch.arange(100), list(range(140))], ids=["a list", "a tensor", "more than slots"]
)
def test_obj_ids_in_order_change_nothing(files, ids):
    Questions(with_obj_ids(files, ids), ["scanqa"])


@pytest.mark.parametrize(
    "ids",
    [list(range(99, -1, -1)), torch.tensor([1, 0, *range(2, 100)]), list(range(87)), [], ["0"] * 100, 5],
    ids=["reversed", "two swapped", "fewer slots", "none", "texts", "no list"],
)
def test_obj_ids_that_reorder_slots(files, ids):
    """Chat-Scene gives slot i the features of obj_ids[i]; to leave that out without a word gives other answers."""
    config = with_obj_ids(files, ids)
    message = r"mask3d_val_attributes.pt: the obj_ids of scene scene0015_00 put other objects into its slots"
    with pytest.raises(DataError, match=message):
        Questions(config, ["scanqa"])
    with pytest.raises(DataError, match=message):
        load_locations(config.data.annotations, "val", ["scene0011_00", "scene0015_00"])
    with pytest.raises(DataError, match=message):
        Rooms(config.data.annotations).objects("scene0015_00")
    Rooms(config.data.annotations).objects("scene0011_00")
