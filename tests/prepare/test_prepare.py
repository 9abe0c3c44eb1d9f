"""`prepare`: exact records, what is dropped and why, determinism, and that the loaders of eval read the result."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from fast3d_core.benchmarks import References, benchmark, score
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import DATASETS
from fast3d_core.data.annotations import load_locations
from fast3d_core.errors import DataError, UsageError
from fast3d_core.prepare import SPLITS, prepare
from fast3d_core.prepare.answers import capitalize_sentences
from tests.prepare.releases import (
    SCENES,
    TRAIN,
    VAL,
    asked,
    meant,
    only,
    said,
    scanrefer,
    situated,
    sqa3d,
    write_boxes,
    write_json,
    write_labels,
    write_releases,
)

SHORT = " Answer the question using a single word or phrase."
SITUATIONS = ("I face a desk.", "A desk is near.", "I see a desk.")

SCANREFER, MULTI3DREF, SCAN2CAP = (
    benchmark(name).wording.templates for name in ("scanrefer", "multi3dref", "scan2cap")
)


@pytest.fixture
def raw(tmp_path) -> Path:
    write_releases(tmp_path / "raw", tmp_path / "annotations")
    return tmp_path / "raw"


@pytest.fixture
def folder(raw) -> Path:
    return raw.parent / "annotations"


def records(prepared, dataset, split):
    """A file's records without their prompts, and these."""
    content = prepared.contents[annotation_file(prepared.folder, dataset, split)]
    return [{k: v for k, v in one.items() if k != "prompt"} for one in content], [one["prompt"] for one in content]


def other_notes(prepared):
    """Those that do not tell that these releases are smaller than the real ones."""
    return [note for note in prepared.notes if "; the release has " not in note]


def part(prepared, dataset, split):
    (found,) = [one for one in prepared.parts if (one.dataset, one.split) == (dataset, split)]
    assert found.read == found.used + sum(found.dropped.values())
    return found


def check_prompts(prompts, templates, mark, fillings):
    for prompt, filling in zip(prompts, fillings, strict=True):
        assert prompt in [template.replace(mark, filling) for template in templates]


def test_scanrefer(raw, folder):
    prepared = prepare(raw, folder)
    found, prompts = records(prepared, "scanrefer", "train")
    # The detected box is what is asked for, where it overlaps by half.
    assert found == [
        {"scene_id": TRAIN, "obj_id": 1, "caption": "<OBJ001>."},
        {"scene_id": TRAIN, "obj_id": 0, "caption": "<OBJ000>."},
        {"scene_id": TRAIN, "obj_id": 0, "caption": "<OBJ000>."},
    ]
    descriptions = [
        "a white chair",
        "this is a brown chair. it is by the DESK",
        "the chair.. it is brown . it has arms",
    ]
    check_prompts(prompts, SCANREFER, "<description>", descriptions)
    assert part(prepared, "scanrefer", "train").dropped == {
        "best IoU below 0.5": 2,
        "empty description": 1,
        "no ground-truth box": 1,
        "scene without detected boxes": 1,
    }
    found, prompts = records(prepared, "scanrefer", "val")
    assert found == [
        {"scene_id": VAL, "obj_id": 0, "ref_captions": ["<OBJ001>."]},
        {"scene_id": VAL, "obj_id": 1, "ref_captions": ["<OBJ000>."]},
        {"scene_id": VAL, "obj_id": 1, "ref_captions": ["<OBJ000>."]},
        {"scene_id": VAL, "obj_id": 2, "ref_captions": ["<OBJ002>."]},
        {"scene_id": VAL, "obj_id": 3, "ref_captions": ["<OBJ000>."]},  # no box overlaps it: the first one
    ]
    check_prompts(
        prompts,
        SCANREFER,
        "<description>",
        [*descriptions, "a chair at the door", "a chair on the left"],
    )
    assert "best IoU below 0.5" not in part(prepared, "scanrefer", "val").dropped


def test_multi3dref(raw, folder):
    prepared = prepare(raw, folder)
    found, prompts = records(prepared, "multi3dref", "train")
    assert found == [
        {"scene_id": TRAIN, "obj_id": 0, "caption": "No.", "eval_type": "zt_w_d"},
        {"scene_id": TRAIN, "obj_id": 0, "caption": "Yes. <OBJ001>.", "eval_type": "st_wo_d"},
        {"scene_id": TRAIN, "obj_id": 0, "caption": "Yes. <OBJ000> and <OBJ001>.", "eval_type": "mt"},
    ]
    check_prompts(
        prompts,
        MULTI3DREF,
        "<description>",
        ["a purple chair", "the white chair", "the chairs"],
    )
    assert part(prepared, "multi3dref", "train").dropped == {
        "best IoU below 0.5": 1,
        "no ground-truth box": 1,
        "scene without detected boxes": 1,
        "two objects share a best box": 1,
    }
    found, _ = records(prepared, "multi3dref", "val")
    assert [(one["ref_captions"], one["eval_type"]) for one in found] == [
        ([], "zt_w_d"), ([0], "st_wo_d"), ([0, 1], "mt"), ([1, 2], "mt"), ([1, 1], "mt"),
    ]  # fmt: skip
    assert list(found[0]) == ["scene_id", "obj_id", "ref_captions", "eval_type"]


def test_three_targets(raw, folder):
    boxes = {TRAIN: [[3.0 * thing, 0, 0, 1, 1, 1] for thing in range(3)]}
    write_boxes(folder, "train", boxes, {TRAIN: boxes[TRAIN][::-1]})
    write_json(raw / "multi3drefer_train_val/multi3drefer_train.json", [meant("train", [0, 1, 2], "mt", "all chairs")])
    found, _ = records(prepare(raw, folder, ["multi3dref"], ["train"]), "multi3dref", "train")
    assert found[0]["caption"] == "Yes. <OBJ000>, <OBJ001>, and <OBJ002>."


def test_scan2cap(raw, folder):
    prepared = prepare(raw, folder)
    found, prompts = records(prepared, "scan2cap", "val")
    brown = ["This is a brown chair. It is by the desk!", "The chair.. it is brown . It has arms."]
    assert [(one["obj_id"], one["pred_id"], one["ref_captions"]) for one in found] == [
        (0, 1, ["A white chair"]),
        (1, 0, brown),
        (2, 2, ["A chair at the door."]),
    ]
    assert [one["iou"] for one in found] == pytest.approx([1, 0.9 / 1.1, 1 / 3], abs=1e-6)
    check_prompts(prompts, SCAN2CAP, "<id>", ["<OBJ001>", "<OBJ000>", "<OBJ002>"])
    assert part(prepared, "scan2cap", "val").dropped == {
        "empty description": 1,
        "no detected box overlaps it most": 1,
        "no ground-truth box": 1,
        "scene without detected boxes": 1,
    }
    # The corpus has all objects, detected or not, in the form of Chat-Scene's since February 2025.
    assert prepared.contents[folder / "scan2cap_val_corpus.json"] == {
        f"{VAL}|0": ["sos A white chair eos"],
        f"{VAL}|1": [f"sos {caption} eos" for caption in brown],
        f"{VAL}|2": ["sos A chair at the door. eos"],
        f"{VAL}|3": ["sos A chair on the left. eos"],
        f"{VAL}|7": ["sos A chair that nobody has scanned. eos"],
        "scene0015_00|0": ["sos A chair in another room. eos"],
    }
    found, prompts = records(prepared, "scan2cap", "train")
    assert [(one["obj_id"], one["pred_id"], one["caption"]) for one in found] == [
        (0, 1, "A white chair"),
        *((1, 0, caption) for caption in brown),
    ]
    assert list(found[0]) == ["scene_id", "obj_id", "pred_id", "caption", "iou"]
    check_prompts(prompts, SCAN2CAP, "<id>", ["<OBJ001>", "<OBJ000>", "<OBJ000>"])
    assert part(prepared, "scan2cap", "train").dropped["best IoU below 0.5"] == 1


def test_scanqa(raw, folder):
    prepared = prepare(raw, folder)
    colour, where = f"What color is the chair?{SHORT}", f"Where is the TV?{SHORT}"
    assert prepared.contents[folder / "scanqa_train.json"] == [
        {"scene_id": TRAIN, "obj_id": 2, "prompt": colour, "caption": "Dark brown."},
        {"scene_id": TRAIN, "obj_id": 2, "prompt": colour, "caption": "Brown."},
        {"scene_id": TRAIN, "obj_id": 0, "prompt": where, "caption": "On the wall."},
    ]
    answers = ["Dark Brown", "Dark Brown", "brown."]
    assert prepared.contents[folder / "scanqa_val.json"] == [
        {"scene_id": VAL, "obj_id": 2, "prompt": colour, "ref_captions": answers},
        {"scene_id": VAL, "obj_id": 0, "prompt": where, "ref_captions": ["on the wall"]},
    ]
    train = part(prepared, "scanqa", "train")
    assert (train.read, train.used, train.records, train.dropped) == (3, 2, 3, {"no answer": 1})
    assert train.notes == ["1 of the answers are left out: empty, or the same as the one before"]
    assert part(prepared, "scanqa", "val").notes == []


def test_sqa3d(raw, folder):
    prepared = prepare(raw, folder)
    for split, scene in SCENES.items():
        found, prompts = records(prepared, "sqa3d", split)
        assert [one["sqa_type"] for one in found] == [0, 3, 5]
        assert all(one["scene_id"] == scene and one["obj_id"] == 0 for one in found)
        questions = ["What color is the desk?", "Can I see the TV?", "  where is it?"]
        for prompt, question in zip(prompts, questions, strict=True):
            assert prompt in [f"{situation} {question}{SHORT}" for situation in SITUATIONS]
        assert part(prepared, "sqa3d", split).dropped == {"no question of its question_id": 1}
    assert [one["ref_captions"] for one in found] == [["brown"], ["yes", "no"], ["left"]]
    captions = [one["caption"] for one in records(prepared, "sqa3d", "train")[0]]
    assert captions[0] == "Brown." and captions[1] in ("Yes.", "No.") and captions[2] == "Left."


def test_sqa3d_types(raw, folder):
    starts = {"What is it?": 0, "is it?": 1, "How?": 2, "CAN I?": 3, "Which one?": 4, " Isn't it?": 1, "Am I?": 5}
    pairs = [situated("val", number, question, ["yes"]) for number, question in enumerate(starts)]
    balanced = raw / "SQA3D/sqa_task/balanced"
    for name, index, key in (("questions", 0, "questions"), ("sqa_annotations", 1, "annotations")):
        write_json(balanced / f"v1_balanced_{name}_val_scannetv2.json", {key: [pair[index] for pair in pairs]})
    found, _ = records(prepare(raw, folder, ["sqa3d"], ["val"]), "sqa3d", "val")
    assert [one["sqa_type"] for one in found] == list(starts.values())


@pytest.mark.parametrize(
    "text, expected",
    [
        ("this is a chair. it is brown", "This is a chair. It is brown"),
        ("from the inside . it will be.   on", "From the inside . It will be. On"),
        ("it is on.the wall", "It is on.the wall"),
        ("the chair.. it is", "The chair.. it is"),
        ('the "chair." next? yes! TV', 'The "chair." Next? Yes! Tv'),
        ("desk.\nit is ", "Desk. It is"),
        ("3.5 m wide", "3.5 m wide"),
        ("", ""),
    ],
)
def test_sentences(text, expected):
    """As NLTK 3.10's Punkt has it without what it learns from a corpus."""
    assert capitalize_sentences(text) == expected


def test_exactly_half_is_below_half(raw, folder):
    """As published: 1e-8 in the denominator."""
    write_boxes(folder, "train", {TRAIN: [[0, 0, 0, 1, 1, 1]]}, {TRAIN: [[0.5, 0, 0, 2, 1, 1]]})
    write_json(raw / "ScanRefer/ScanRefer_filtered_train.json", [said("train", 0, 0, "a chair")])
    with pytest.raises(DataError, match=r"nothing is left of .*best IoU below 0.5 \(1\)"):
        prepare(raw, folder, ["scanrefer"], ["train"])


def test_one_hundred_slots(raw, folder):
    far = [[-5.0 * thing, 9, 9, 1, 1, 1] for thing in range(99)]
    exact = [0.0, 0, 0.5, 1, 1, 1]
    write_json(raw / "ScanRefer/ScanRefer_filtered_val.json", [said("val", 0, 0, "a chair")])
    for others, slot in ((far, 99), ([*far, far[0]], 0)):
        write_boxes(folder, "val", {VAL: [exact]}, {VAL: [*others, exact]})
        found, _ = records(prepare(raw, folder, ["scanrefer"], ["val"]), "scanrefer", "val")
        assert found[0]["ref_captions"] == [f"<OBJ{slot:03}>."]


def test_as_many_slots_as_the_model_has(raw, folder):
    """Boxes beyond data.max_objects have no name; there may be more or fewer than 100."""
    far = [[-5.0 * thing, 9, 9, 1, 1, 1] for thing in range(109)]
    exact = [0.0, 0, 0.5, 1, 1, 1]
    write_json(raw / "ScanRefer/ScanRefer_filtered_val.json", [said("val", 0, 0, "a chair")])
    write_boxes(folder, "val", {VAL: [exact]}, {VAL: [*far, exact]})
    for objects, slot in ((100, 0), (109, 0), (110, 109), (150, 109)):
        prepared = prepare(raw, folder, ["scanrefer", "scan2cap"], ["val"], objects=objects)
        assert records(prepared, "scanrefer", "val")[0][0]["ref_captions"] == [f"<OBJ{slot:03}>."]
        assert records(prepared, "scan2cap", "val")[0][0]["pred_id"] == slot


@pytest.mark.parametrize(("objects", "kind"), [([], "mt"), ([], "st_w_d"), ([1], "zt_w_d"), ([1, 2], "zt_wo_d")])
def test_a_contradiction_costs_its_record_alone(raw, folder, objects, kind):
    path = raw / "multi3drefer_train_val/multi3drefer_val.json"
    whole = records(prepare(raw, folder, ["multi3dref"], ["val"]), "multi3dref", "val")
    write_json(path, [meant("val", objects, kind, "the chairs of nobody"), *json.loads(path.read_text())])
    prepared = prepare(raw, folder, ["multi3dref"], ["val"])
    found, prompts = records(prepared, "multi3dref", "val")
    assert found == whole[0] and len(prompts) == len(whole[1])
    (reason,) = [reason for reason in part(prepared, "multi3dref", "val").dropped if "eval_type" in reason]
    assert reason == f"object_ids {'name some' if objects else 'are empty'}, eval_type says otherwise"


@pytest.mark.parametrize(
    ("spelt", "edition"),
    [("refridgerator", "ScanNet's own .*1,759 unique, 7,749"), ("refrigerator", "ScanRefer's .*1,845 unique, 7,663")],
)
def test_the_edition_of_the_label_table_is_told(raw, folder, spelt, edition):
    write_labels(raw)
    with (raw / "scannetv2-labels.combined.tsv").open("a") as file:
        file.write(f"3\tfridge\trefrigerator\t24\t{spelt}\n")
    (note,) = other_notes(prepare(raw, folder, ["scanrefer"]))
    assert re.match(f"scanrefer_unique_multiple_lookup.json is by {edition} multiple", note)


def test_seed(raw, folder):
    many = [said("val", 0, number, f"chair {number}") for number in range(200)]
    write_json(raw / "ScanRefer/ScanRefer_filtered_val.json", many)
    first, again, other = (prepare(raw, folder, seed=seed) for seed in (1, 1, 2))
    assert first == again and first.contents != other.contents
    assert prepare(raw, folder, ["scanrefer"], ["val"], 1).contents.items() <= first.contents.items()
    # All templates are drawn, about as often.
    _, prompts = records(first, "scanrefer", "val")
    counts = Counter(prompt.split('"')[0] for prompt in prompts)
    assert len(counts) == len({template.split('"')[0] for template in SCANREFER}) and min(counts.values()) > 8


def test_what_eval_reads(raw, folder):
    """Loaders and metrics take it all; perfect answers score 1."""
    write_labels(raw)
    prepared = prepare(raw, folder)
    prepared.write()
    assert prepared.missing == other_notes(prepared) == []
    assert prepared.lacking == ["scannet_mask3d_uni3d_feats.pt", "scannet_mask3d_videofeats.pt"]
    assert sorted(path.name for path in folder.glob("*.json")) == sorted(path.name for path in prepared.contents)
    references = References(folder)
    several, one = dict.fromkeys("01237", 1), {"0": 0}
    assert references.unique_multiple == {
        TRAIN: several, VAL: several, "scene0005_00": one, "scene0015_00": one,
    }  # fmt: skip
    for split in SPLITS:
        for dataset in DATASETS:
            samples = load_samples(folder, dataset, split)
            assert load_locations(folder, split, {sample.scene_id for sample in samples})
            assert all((sample.caption is None) == (split == "val") for sample in samples)
    for dataset in DATASETS:
        samples = load_samples(folder, dataset)
        answers = [
            "Yes. <OBJ001> and <OBJ000>." if dataset == "multi3dref" else str(sample.ref_captions[0])
            for sample in samples
        ]
        result = score(dataset, [s.record(a) for s, a in zip(samples, answers, strict=True)], references, meteor=False)
        assert result.samples == len(samples)
        if dataset == "scan2cap":
            assert not any("sos" in note for note in result.notes)
        if dataset == "scanrefer":
            assert result.metrics["[scanrefer] Acc@0.50"] == 3 / 5
        if dataset == "multi3dref":
            assert result.metrics["[multi3dref] mt F1@0.50"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)


def test_lookup_s_own_rules(raw, folder):
    prepared = prepare(raw, folder)
    assert folder / "scanrefer_unique_multiple_lookup.json" not in prepared.contents
    assert "scannetv2-labels.combined.tsv" in other_notes(prepared)[0]
    write_labels(raw)
    write_json(folder / "scanrefer_unique_multiple_lookup.json", {"scene": "the published one"})
    prepared = prepare(raw, folder)
    assert folder / "scanrefer_unique_multiple_lookup.json" not in prepared.contents
    assert other_notes(prepared) == []
    (folder / "scanrefer_unique_multiple_lookup.json").unlink()
    val = prepare(raw, folder, ["scanrefer"], ["val"])  # the other split's objects are in it, too
    assert TRAIN in val.contents[folder / "scanrefer_unique_multiple_lookup.json"]


def test_missing(raw, folder):
    only(raw, "ScanQA", "ScanRefer")
    (raw / "ScanQA/ScanQA_v1.0_train.json").unlink()
    prepared = prepare(raw, folder)
    made = {("scanrefer", "train"), ("scan2cap", "train"), ("scanrefer", "val"), ("scan2cap", "val"), ("scanqa", "val")}
    assert {(one.dataset, one.split) for one in prepared.parts} == made
    assert ("scanqa", "train", ["ScanQA_v1.0_train.json"]) in [(m.dataset, m.split, m.files) for m in prepared.missing]
    assert len(prepared.missing) == 5
    with pytest.raises(DataError, match=r"raw has no ScanQA_v1.0_train.json \(scanqa, train\); get it from https"):
        prepare(raw, folder, ["scanqa"])
    with pytest.raises(DataError, match=r"has no v1_balanced_questions_val_scannetv2.json"):
        prepare(raw, folder, ["sqa3d"], ["val"])
    only(raw)
    with pytest.raises(DataError, match=r"has no ScanRefer_filtered_train.json"):
        prepare(raw, folder)
    with pytest.raises(DataError, match="there is no folder"):
        prepare(raw / "nowhere", folder)


def test_where_files_are_found(raw, folder):
    """Questions need no boxes; boxes may lie among the releases; the least deep file counts, two of them do not."""
    new = folder.parent / "new"
    assert len(prepare(raw, new, ["scanqa", "sqa3d"]).lacking) == 6
    with pytest.raises(DataError, match=r"scannet_mask3d_train_attributes.pt is neither in .*new nor in .*download"):
        prepare(raw, new)
    folder.rename(raw / "boxes")
    assert len(prepare(raw, new).parts) == 10
    write_json(raw / "ScanQA_v1.0_val.json", [asked("val", 0, "Which?", ["that"])])
    assert part(prepare(raw, new), "scanqa", "val").read == 1
    write_json(raw / "other" / "ScanQA_v1.0_train.json", [])
    with pytest.raises(DataError, match="are both there; leave only the one"):
        prepare(raw, new)


def test_files_that_are_there(raw, folder):
    """The same content is left alone, another one is not overwritten unasked, and then nothing is written."""
    prepare(raw, folder).write()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.json")}
    assert len(before) == 11
    prepare(raw, folder).write()
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.json")} == before
    (folder / "sqa3d_val.json").write_text("[]")
    (folder / "scanrefer_mask3d_train.json").unlink()
    with pytest.raises(UsageError, match=r"sqa3d_val.json is there with another content"):
        prepare(raw, folder).write()
    assert not (folder / "scanrefer_mask3d_train.json").exists()
    prepare(raw, folder).write(replace=True)
    assert len(load_samples(folder, "sqa3d")) == 3 and len(load_samples(folder, "scanrefer", "train")) == 3


def test_mixed_up_files(raw, folder):
    """Train questions under val's name: no question of theirs is there, so nothing is left."""
    questions, _ = sqa3d("val")
    for question in questions["questions"]:
        question["question_id"] += 1000
    write_json(raw / "SQA3D/sqa_task/balanced/v1_balanced_questions_val_scannetv2.json", questions)
    with pytest.raises(DataError, match=r"nothing is left of .*val_scannetv2.json: no question .* \(4\); is it"):
        prepare(raw, folder)
    assert list(folder.glob("*.json")) == []


def test_published_order(raw, folder):
    """Sorted as text of at least three digits, so that 1000 comes before 101; equals stay in file order."""
    shuffled = [said("val", number, 0, f"chair {number}") for number in (101, 3, 1000, 20, 3)]
    write_json(raw / "ScanRefer/ScanRefer_filtered_val.json", [*shuffled, *scanrefer("val")])
    prepared = prepare(raw, folder, ["scanrefer"], ["val"])
    found, prompts = records(prepared, "scanrefer", "val")
    assert [one["obj_id"] for one in found] == [0, 1, 1, 2, 3, 3, 3]
    assert [json.dumps(prompt).count("chair 3") for prompt in prompts[-3:]] == [1, 1, 0]
    assert part(prepared, "scanrefer", "val").dropped["no ground-truth box"] == 4
