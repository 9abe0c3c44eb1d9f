"""Whatever is wrong with a file is one line that names it, and the record; nothing is written."""

import json
import random
import warnings

import pytest
import torch

from fast3d_core.errors import DataError, Fast3DError
from fast3d_core.prepare import prepare
from tests.prepare.releases import TRAIN, TRUE, said, scanrefer, write_boxes, write_json, write_labels, write_releases

SCANREFER = "ScanRefer/ScanRefer_filtered_val.json"
MULTI3DREFER = "multi3drefer_train_val/multi3drefer_val.json"
SCANQA = "ScanQA/ScanQA_v1.0_train.json"
QUESTIONS = "SQA3D/sqa_task/balanced/v1_balanced_questions_val_scannetv2.json"
ANNOTATIONS = "SQA3D/sqa_task/balanced/v1_balanced_sqa_annotations_val_scannetv2.json"


@pytest.fixture
def raw(tmp_path):
    write_releases(tmp_path / "raw", tmp_path / "annotations")
    return tmp_path / "raw"


def refused(raw) -> str:
    """The one line that `prepare` refuses the releases with."""
    folder = raw.parent / "annotations"
    with pytest.raises(DataError) as caught:
        prepare(raw, folder).write()
    assert list(folder.glob("*.json")) == []
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500 + 2 * len(str(raw))
    return message


@pytest.mark.parametrize(
    "name, key, record, change, expected",
    [
        (SCANREFER, None, 1, {"object_id": "-1"}, "object_id should be the number of an object, not '-1'"),
        (SCANREFER, None, 1, {"object_id": "007"}, "object_id should be"),
        (SCANREFER, None, 1, {"object_id": True}, "object_id should be the number of an object, not True"),
        (SCANREFER, None, 1, {"object_id": 10**18}, "not 1000000000000000000"),
        (SCANREFER, None, 1, {"object_id": [1]}, "not this list"),
        (SCANREFER, None, 1, {"object_id": "٣"}, "object_id should be"),
        (SCANREFER, None, 1, {"description": None}, "description should be text, not None"),
        (SCANREFER, None, 1, {"scene_id": "../../etc"}, "scene_id should be a scan such as scene0011_00"),
        (SCANREFER, None, 1, {"scene_id": "scene0011_00\n"}, "scene_id should be a scan"),
        (MULTI3DREFER, None, 2, {"object_ids": [1, -2]}, "object_ids should be a list of object numbers"),
        (MULTI3DREFER, None, 2, {"object_ids": [1.0]}, "object_ids should be a list of object numbers"),
        (MULTI3DREFER, None, 2, {"eval_type": "all"}, "eval_type should be one of zt_w_d, zt_wo_d, st_w_d"),
        (MULTI3DREFER, None, 2, {"eval_type": []}, "eval_type should be text, not this list"),
        (SCANQA, None, 0, {"answers": "brown"}, "answers should be a list of texts, not 'brown'"),
        (SCANQA, None, 0, {"answers": ["brown", 3]}, "answers should be a list of texts, not this list"),
        (SCANQA, None, 0, {"object_ids": ["3"]}, "object_ids should be a list of object numbers"),
        (QUESTIONS, "questions", 0, {"question_id": [1]}, "question_id should be a number"),
        (QUESTIONS, "questions", 0, {"alternative_situation": [None]}, "alternative_situation should be a list"),
        (ANNOTATIONS, "annotations", 1, {"answers": {"answer": "no"}}, "answers should be a list, not this dict"),
        (ANNOTATIONS, "annotations", 1, {"answers": ["no"]}, "it should be an object with a field answer, not str"),
    ],
)  # fmt: skip
def test_malformed_records(raw, name, key, record, change, expected):
    content = json.loads((raw / name).read_text())
    fields = (content[key] if key else content)[record]
    fields |= change
    write_json(raw / name, content)
    message = refused(raw)
    assert message.startswith(f"{raw / name}: record {record}: ") and expected in message
    assert message.endswith("; download the release again")


@pytest.mark.parametrize("name, field", [(SCANREFER, "description"), (SCANQA, "question"), (MULTI3DREFER, "eval_type")])
def test_missing_fields(raw, name, field):
    content = json.loads((raw / name).read_text())
    del content[1][field]
    write_json(raw / name, content)
    assert f"{name}: record 1: the field {field} is missing" in refused(raw)
    write_json(raw / name, [content[0], 7])
    assert f"{name}: record 1: it should be an object with a field" in refused(raw)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", "is not valid JSON"),
        ('[{"scene_id": ', "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("9" * 5000, "is not valid JSON"),
        ("9" * 30, "is not valid JSON (an integer has more than 64 bits"),
        ('["half \\ud800"]', "is not valid JSON (a text holds half of a surrogate pair)"),
        ("[NaN]", "is not valid JSON (a number is NaN)"),
        ("[1e999]", "is not valid JSON (a number is 1e999)"),
        ("\xff", "is not valid JSON"),
        ("[]", "should hold a list of records"),
        ('{"questions": []}', "should hold a list of records"),
        ("null", "should hold a list of records"),
    ],
)
def test_damaged_json(raw, text, expected):
    for name in (SCANREFER, QUESTIONS, ANNOTATIONS):
        whole = (raw / name).read_bytes()
        (raw / name).write_bytes(text.encode("latin-1"))
        message = refused(raw)
        assert str(raw / name) in message and expected in message
        (raw / name).write_bytes(whole)


def locs(*row, count=1):
    return {TRAIN: {"locs": torch.tensor([row] * count, dtype=torch.float32)}}


@pytest.mark.parametrize(
    "content, expected",
    [
        ([1], "should hold boxes by scene, not a list"),
        ({TRAIN: torch.zeros(3, 6)}, "under 'locs' for scene scene0000_00"),
        ({TRAIN: {}}, "under 'locs'"),
        ({TRAIN: {"locs": [[0.0] * 6]}}, "under 'locs'"),
        ({TRAIN: {"locs": torch.zeros(3, 7)}}, "under 'locs'"),
        ({TRAIN: {"locs": torch.zeros(6)}}, "under 'locs'"),
        ({TRAIN: {"locs": torch.zeros(3, 6, dtype=torch.int64)}}, "under 'locs'"),
        ({TRAIN: {"locs": torch.zeros(3, 6, dtype=torch.complex64)}}, "was not loaded"),
        ({TRAIN: {"locs": torch.zeros(3, 6).to_sparse()}}, "was not loaded"),
        ({TRAIN: {"locs": torch.zeros(1, 1).expand(10**12, 6)}}, "its tensors claim"),
        ({TRAIN: {"locs": torch.zeros(1001, 6)}}, "should have up to 1000 boxes"),
        (locs(0, 0, 0, 1, 1, float("nan")), "are not centres and sizes in metres"),
        (locs(0, float("inf"), 0, 1, 1, 1), "are not centres and sizes in metres"),
        (locs(0, 0, 0, 1, -1, 1), "are not centres and sizes in metres"),
        (locs(0, 0, 0, 1e30, 1e30, 1e30), "are not centres and sizes in metres"),
    ],
)
@pytest.mark.parametrize("name", ["scannet_train_attributes.pt", "scannet_mask3d_train_attributes.pt"])
def test_damaged_boxes(raw, name, content, expected):
    torch.save(content, raw.parent / "annotations" / name)
    message = refused(raw)
    assert str(raw.parent / "annotations" / name) in message and expected in message


def test_boxes_that_run_code(raw, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "made"), "w"))

    torch.save({TRAIN: Evil()}, raw.parent / "annotations" / "scannet_train_attributes.pt")
    assert "scannet_train_attributes.pt was not loaded" in refused(raw)
    assert not (tmp_path / "made").exists()


def test_label_table(raw):
    write_labels(raw)
    (raw / "scannetv2-labels.combined.tsv").write_bytes(b"id\traw_category\n\xff\x00")
    assert "are not ScanNet's label table and ScanRefer's annotations" in refused(raw)


def test_other_split_of_the_lookup(raw):
    """The lookup is of both splits, so that the other one's file is checked, too."""
    write_labels(raw)
    write_json(raw / "ScanRefer/ScanRefer_filtered_train.json", [said("train", 0, 0, "x", scene_id=3)])
    with pytest.raises(DataError, match="ScanRefer_filtered_train.json: record 0: scene_id should be text"):
        prepare(raw, raw.parent / "annotations", ["scanrefer"], ["val"])


def test_half_precision_boxes(raw):
    """Any floating-point numbers are boxes."""
    content = {TRAIN: {"locs": torch.tensor(TRUE, dtype=torch.bfloat16, requires_grad=True)}}
    torch.save(content, raw.parent / "annotations" / "scannet_mask3d_train_attributes.pt")
    assert prepare(raw, raw.parent / "annotations", ["scanrefer"], ["train"]).parts[0].dropped["empty description"] == 1


JUNK = [None, True, -1, 1.5, 10**30, "", "x", "\ud800", "scene0000_00", [], [None], [[]], {}, {"answer": 1}]


def spoil(rng, value):
    """`value` with one thing in it changed, left out or doubled."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        how = rng.random()
        if how < 0.1:
            del value[key]
        elif how < 0.2 and isinstance(value, list):
            value.append(value[key])
        else:
            value[key] = spoil(rng, value[key])
        return value
    return rng.choice(JUNK)


def test_fuzz(raw):
    """Spoilt records and flipped bytes: an error, or files that can be written and read."""
    rng = random.Random(0)
    folder = raw.parent / "annotations"
    write_labels(raw)
    files = [*raw.glob("**/*.json"), *folder.glob("*.pt")]
    outcomes = {True: 0, False: 0}
    for _ in range(1500):
        path = rng.choice(files)
        whole = path.read_bytes()
        if path.suffix == ".json" and rng.random() < 0.8:
            path.write_text(json.dumps(spoil(rng, json.loads(whole))))
        else:
            flipped = bytearray(whole)
            for _ in range(rng.randrange(1, 4)):
                flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            path.write_bytes(flipped)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                prepared = prepare(raw, folder)
            for content in prepared.contents.values():
                json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
            outcomes[True] += 1
        except Fast3DError as problem:
            assert "\n" not in str(problem)
            outcomes[False] += 1
        finally:
            path.write_bytes(whole)
    assert min(outcomes.values()) > 100


def test_same_records_after_all(raw):
    """The fixtures themselves are sound."""
    assert json.loads((raw / SCANREFER).read_text()) == scanrefer("val")
    write_boxes(raw.parent / "annotations", "val", {}, {})
    assert "scene without detected boxes" in refused(raw)
