"""`score` and `headline_of` as their callers use them: statistics, keys, empty and damaged predictions."""

import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fast3d_core.benchmarks import DATASETS, Origin, References, benchmark, score
from fast3d_core.errors import DataError, UsageError

DATA = Path(__file__).parents[1] / "data" / "metrics"
REFERENCES = References(DATA / "annotations")
PREDICTIONS = {name: json.loads((DATA / "preds" / f"preds_{name}.json").read_text("utf-8")) for name in DATASETS}


@settings(deadline=None, max_examples=12)
@pytest.mark.parametrize("dataset", DATASETS)
@given(data=st.data())
def test_statistics_of_a_subset_add_up_to_its_headline(dataset, data):
    records = PREDICTIONS[dataset]
    chosen = data.draw(st.lists(st.integers(0, len(records) - 1), min_size=1, max_size=len(records)))
    result = score(dataset, [records[index] for index in chosen], REFERENCES, meteor=False)
    value = result.metrics[benchmark(dataset).headline.key]
    assert benchmark(dataset).headline_of(result.stats.sum(0)) == pytest.approx(value, abs=1e-12, rel=0)
    if dataset != "scan2cap":  # whose rows are the corpus's
        whole = score(dataset, records, REFERENCES, meteor=False)
        np.testing.assert_array_equal(result.stats, whole.stats[chosen])
        assert benchmark(dataset).headline_of(whole.stats[chosen].sum(0)) == pytest.approx(value, abs=1e-12, rel=0)


@pytest.mark.parametrize("dataset", DATASETS)
def test_headline_of_many_resamples_at_once(dataset):
    stats = score(dataset, PREDICTIONS[dataset], REFERENCES, meteor=False).stats
    draws = np.random.default_rng(0).integers(0, len(stats), (7, len(stats)))
    sums = stats[draws].sum(1)
    many = benchmark(dataset).headline_of(sums)
    assert many.shape == (7,)
    np.testing.assert_array_equal(many, [benchmark(dataset).headline_of(row) for row in sums])
    assert len(set(many.tolist())) > 1


@pytest.mark.parametrize("dataset", DATASETS)
def test_keys_say_what_a_row_is_wherever_its_record_stands(dataset):
    asked = {(record["scene_id"], record["gt_id"]): record for record in PREDICTIONS[dataset]}
    records = PREDICTIONS[dataset] if dataset != "scan2cap" else list(asked.values())  # one prediction an object
    records = [record | {"qid": f"question {index}"} for index, record in enumerate(records)]
    shuffled = random.Random(1).sample(records, len(records))
    first, second = (score(dataset, each, REFERENCES, meteor=False) for each in (records, shuffled))
    rows = dict(zip(second.keys, second.stats.tolist(), strict=True))
    assert {key: rows[key] for key in first.keys} == dict(zip(first.keys, first.stats.tolist(), strict=True))
    other_answers = score(dataset, [record | {"pred": "No."} for record in records], REFERENCES, meteor=False)
    assert other_answers.keys == first.keys


def test_two_descriptions_of_one_object_have_two_keys():
    record = PREDICTIONS["scanrefer"][0]
    records = [record, record | {"prompt": "the other one"}, record]
    keys = score("scanrefer", records, REFERENCES).keys
    assert len(set(keys)) == 3
    assert keys[2] == f"{keys[0]}#1"


@pytest.mark.parametrize("dataset", DATASETS)
def test_no_records_no_score(dataset):
    result = score(dataset, [], REFERENCES, meteor=False)
    assert result.samples == 0
    assert benchmark(dataset).headline.key in result.metrics
    assert set(result.metrics.values()) == {None}
    assert len(result.stats) == 0
    assert result.keys == []
    assert len(result.notes) == 1
    assert "no records" in result.notes[0]


@pytest.mark.parametrize(("kept", "missing"), [(0, "Multiple"), (1, "Unique")])
def test_a_split_without_a_record_is_null(kept, missing):
    records = [
        record
        for record in PREDICTIONS["scanrefer"]
        if REFERENCES.unique_multiple[record["scene_id"]][str(record["gt_id"])] == kept
    ]
    result = score("scanrefer", records, REFERENCES)
    nulls = {key for key, value in result.metrics.items() if value is None}
    assert nulls == {f"[scanrefer] {missing} Acc@0.25", f"[scanrefer] {missing} Acc@0.50"}
    assert [note for note in result.notes if f"{missing} is null" in note] == [
        f"ScanRefer: {missing} is null: no record is of a {missing.lower()} object."
    ]


def annotations(folder, *names):
    for name in names or ("scannet_mask3d_val_attributes.pt", "scannet_val_attributes.pt", "scan2cap_val_corpus.json"):
        shutil.copy(DATA / "annotations" / name, folder)
    return References(folder)


def test_without_a_lookup_both_splits_are_null(tmp_path):
    result = score("scanrefer", PREDICTIONS["scanrefer"], annotations(tmp_path))
    assert sum(value is None for value in result.metrics.values()) == 4
    assert result.metrics["[scanrefer] Acc@0.50"] == 0.4
    assert "scanrefer_unique_multiple_lookup.json" in result.notes[0]


def test_objects_of_the_corpus_without_a_prediction_are_counted_and_noted():
    result = score("scan2cap", PREDICTIONS["scan2cap"][:3], REFERENCES, meteor=False)
    assert len(result.stats) == len(result.keys) == 62
    assert "59 of the corpus's 62 objects" in result.notes[0]


@pytest.mark.parametrize("dataset", ["scan2cap", "scanqa", "sqa3d"])
def test_meteor_is_null_and_noted_where_it_cannot_run(dataset, monkeypatch):
    monkeypatch.setattr("fast3d_core.benchmarks.meteor.available", lambda: "METEOR is null: there is no Java.")
    result = score(dataset, PREDICTIONS[dataset], REFERENCES)
    nulls = [key for key, value in result.metrics.items() if value is None]
    assert nulls
    assert all("METEOR" in key for key in nulls)
    assert "METEOR is null: there is no Java." in result.notes


BROKEN = [
    ("scanrefer", "pred", None, "pred is missing"),
    ("scanrefer", "pred", 5, "pred must be a string"),
    ("scanrefer", "gt_id", "5", "gt_id must be a non-negative integer"),
    ("scanrefer", "gt_id", True, "gt_id must be a non-negative integer"),
    ("scanrefer", "gt_id", -1, "gt_id must be a non-negative integer"),
    ("scanrefer", "gt_id", 99, "has 10 boxes in scannet_val_attributes.pt"),
    ("scanrefer", "scene_id", "scene0999_00", "is not in scannet_mask3d_val_attributes.pt"),
    ("scanrefer", "scene_id", ["scene0100_00"], "scene_id must be a string"),
    ("multi3dref", "type_info", "zero", "type_info must be one of zt_w_d"),
    ("multi3dref", "type_info", 0, "type_info must be one of zt_w_d"),
    ("multi3dref", "ref_captions", 3, "must be a list of non-negative integers"),
    ("multi3dref", "ref_captions", ["3"], "must be a list of non-negative integers"),
    ("multi3dref", "ref_captions", [], "type_info has a target"),
    ("multi3dref", "ref_captions", [500], "a target in ref_captions is 500"),
    ("multi3dref", "ref_captions", None, "ref_captions is missing"),
    ("scan2cap", "pred_id", None, "pred_id is missing"),
    ("scan2cap", "pred_id", 100, "pred_id is 100"),
    ("scan2cap", "pred", ["a chair"], "pred must be a string"),
    ("scanqa", "ref_captions", [], "a list of at least one string"),
    ("scanqa", "ref_captions", "brown", "a list of at least one string"),
    ("scanqa", "ref_captions", [1], "a list of at least one string"),
    ("sqa3d", "type_info", 6, "type_info must be one of 0, 1"),
    ("sqa3d", "type_info", "what", "type_info must be one of 0, 1"),
    ("sqa3d", "type_info", None, "type_info is missing"),
]


@pytest.mark.parametrize(("dataset", "field", "value", "text"), BROKEN)
def test_a_broken_record_is_one_line_that_says_where(dataset, field, value, text):
    records = copy.deepcopy(PREDICTIONS[dataset])
    if value is None:
        del records[2][field]
    else:
        records[2][field] = value
    if dataset == "multi3dref" and field == "ref_captions":
        records[2]["type_info"] = "mt"
    if value == 99:
        records[2]["scene_id"] = "scene0412_00"
    with pytest.raises(DataError) as caught:
        score(dataset, records, REFERENCES, meteor=False)
    message = str(caught.value)
    assert message.startswith(f"{dataset} predictions, record 2: ")
    assert text in message
    assert "\n" not in message


def test_an_object_outside_the_corpus(tmp_path):
    references = annotations(tmp_path)
    del references.corpus["scene0100_00|5"]
    with pytest.raises(
        DataError, match=r'scan2cap predictions, record 0: "scene0100_00\|5" is not in scan2cap_val_corpus'
    ):
        score("scan2cap", PREDICTIONS["scan2cap"], references, meteor=False)


def test_an_object_outside_the_lookup(tmp_path):
    references = annotations(tmp_path)
    (tmp_path / "scanrefer_unique_multiple_lookup.json").write_text('{"scene0412_00": {"4": 1}}')
    with pytest.raises(DataError, match="record 1: object 5 of scene0412_00 is not in the unique/multiple lookup"):
        score("scanrefer", PREDICTIONS["scanrefer"], references)


@pytest.mark.parametrize("records", [{"preds": []}, ["<OBJ001>"], [None]])
def test_predictions_that_are_not_records(records):
    with pytest.raises(DataError, match="must be"):
        score("scanrefer", records, REFERENCES)


def test_an_unknown_benchmark():
    with pytest.raises(UsageError, match="did you mean scanrefer"):
        score("ScanRefer", [], REFERENCES)
    with pytest.raises(UsageError, match="no benchmark nr3d"):
        benchmark("nr3d")


@pytest.mark.parametrize("dataset", ["scanrefer", "multi3dref", "sqa3d"])
def test_a_rate_of_nothing_is_no_number(dataset):
    assert np.isnan(benchmark(dataset).headline_of(np.zeros((3, 2)))).all()


def test_part_of_scan2cap_is_scored_over_what_was_asked():
    """A run with --limit must not count the rest of the corpus as empty captions."""
    records = PREDICTIONS["scan2cap"][:5]
    whole = score("scan2cap", records, REFERENCES, meteor=False)
    part = score("scan2cap", records, REFERENCES, meteor=False, part=True)
    assert len(part.stats) == len({(r["scene_id"], r["gt_id"]) for r in records}) < len(whole.stats)
    assert part.metrics[benchmark("scan2cap").headline.key] > whole.metrics[benchmark("scan2cap").headline.key]
    assert set(part.keys) < set(whole.keys)


def test_answers_that_name_a_thousand_objects():
    """The assignment of objects takes memory with their square."""
    record = next(r for r in PREDICTIONS["multi3dref"] if r["type_info"] == "mt")
    with pytest.raises(DataError, match="record 0: pred names 1001 objects; 1000 can be meant at most"):
        score("multi3dref", [record | {"pred": "<OBJ000>" * 1001}], REFERENCES)
    with pytest.raises(DataError, match="ref_captions must be a list of non-negative integers, at most 1000"):
        score("multi3dref", [record | {"ref_captions": [0] * 1001}], REFERENCES)
    score("multi3dref", [record | {"pred": "<OBJ000>" * 1000, "ref_captions": [0] * 1000}], REFERENCES)


@pytest.mark.parametrize("dataset", ["scanrefer", "multi3dref", "scan2cap"])
@pytest.mark.parametrize("kind", ["instances", "objects"])
def test_boxes_that_are_not_finite(dataset, kind):
    references = References(DATA / "annotations")
    records = PREDICTIONS[dataset]
    scene = next(r["scene_id"] for r in records if r["type_info"] not in ("zt_w_d", "zt_wo_d"))
    spoilt = getattr(references, kind)
    spoilt.scenes[scene] = np.full_like(spoilt.scenes[scene], np.nan)
    with pytest.raises(DataError, match=f"the boxes of {scene} in {spoilt.file} hold NaN or infinity"):
        score(dataset, records, references, meteor=False)


@pytest.mark.parametrize("dataset", ["scan2cap", "scanqa", "sqa3d"])
def test_cider_of_one_sample_is_null(dataset):
    """By definition it is 0, whatever the answer: every word is in all samples."""
    record = {**PREDICTIONS[dataset][1], "pred": "brown", "ref_captions": ["brown"]}
    one = score(dataset, [record], REFERENCES, meteor=False, part=True)
    ciders = [value for name, value in one.metrics.items() if "CIDEr" in name]
    assert ciders and set(ciders) == {None}
    assert [note for note in one.notes if "CIDEr is null" in note]
    several = score(dataset, PREDICTIONS[dataset][:4], REFERENCES, meteor=False, part=True)
    assert all(value is not None for name, value in several.metrics.items() if "CIDEr" in name)
    assert not [note for note in several.notes if "CIDEr" in note]


def test_a_corpus_that_is_not_wrapped_is_noted(tmp_path):
    references = annotations(tmp_path)
    captions = sum(map(len, references.corpus.values()))
    (note,) = [n for n in score("scan2cap", PREDICTIONS["scan2cap"], references, meteor=False).notes if "sos" in n]
    assert note.startswith(f"Scan2Cap: {captions} of {captions} captions in scan2cap_val_corpus.json are not wrapped")
    shutil.copy(DATA / "annotations" / "scan2cap_val_corpus_sos.json", tmp_path / "scan2cap_val_corpus.json")
    wrapped = References(tmp_path)
    result = score("scan2cap", PREDICTIONS["scan2cap"], wrapped, meteor=False)
    assert not [note for note in result.notes if "sos" in note]
    key = next(iter(wrapped.corpus))
    wrapped.corpus[key] = ["sos", *wrapped.corpus[key]]
    notes = score("scan2cap", PREDICTIONS["scan2cap"], wrapped, meteor=False).notes
    assert any(f" 1 of {captions + 1} captions" in note for note in notes)


@pytest.mark.parametrize("dataset", DATASETS)
def test_empty_answers_are_counted(dataset):
    records = [record | {"pred": "<OBJ001> brown"} for record in PREDICTIONS[dataset]]
    for empty in (0, 2, len(records)):
        spoilt = [record | {"pred": " "} for record in records[:empty]] + records[empty:]
        notes = [note for note in score(dataset, spoilt, REFERENCES, meteor=False).notes if "are empty." in note]
        assert notes == ([f"{dataset}: {empty} of {len(records)} answers are empty."] if empty else [])


@pytest.mark.parametrize("answer", ["object 17", "<OBJ17>", "<obj017>", "<OBJ999>"])
@pytest.mark.parametrize("dataset", ["scanrefer", "multi3dref"])
def test_answers_without_a_valid_object_are_counted(dataset, answer):
    records = PREDICTIONS[dataset]
    lost = score(dataset, [record | {"pred": answer} for record in records], REFERENCES)
    assert any("<OBJxxx>" in note and f"of {len(records)} answers" in note for note in lost.notes)
    named = score(dataset, [record | {"pred": "<OBJ001>"} for record in records], REFERENCES)
    assert not any("<OBJxxx>" in note for note in named.notes)


def test_digits_of_other_scripts_name_objects():
    """As in the published scorer, whose pattern is Python's."""
    records = PREDICTIONS["scanrefer"]
    table = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
    arabic = [record | {"pred": record["pred"].translate(table)} for record in records]
    plain, other = (score("scanrefer", each, REFERENCES) for each in (records, arabic))
    assert other.metrics == plain.metrics and other.notes == plain.notes


@pytest.mark.parametrize("references", [None, []])
@pytest.mark.parametrize("dataset", ["scanqa", "sqa3d", "multi3dref"])
def test_without_any_answer_the_scores_are_null(dataset, references):
    """A test split. One record without is a flaw, see BROKEN."""
    records = [{k: v for k, v in record.items() if k != "ref_captions"} for record in PREDICTIONS[dataset]]
    records = [record if references is None else record | {"ref_captions": references} for record in records]
    result = score(dataset, records, REFERENCES, meteor=False)
    assert set(result.metrics.values()) == {None} and benchmark(dataset).headline.key in result.metrics
    assert result.samples == len(records) and result.keys == [] and len(result.stats) == 0
    assert result.notes == [
        f"{dataset}: the questions come without answers, as in test splits, so its scores are null."
    ]


def test_no_object_is_an_answer():
    """Questions without a target have no ids among their references, and are scored."""
    records = [record for record in PREDICTIONS["multi3dref"] if record["type_info"] in ("zt_w_d", "zt_wo_d")]
    result = score("multi3dref", [record | {"pred": "No."} for record in records], REFERENCES)
    assert result.metrics[benchmark("multi3dref").headline.key] == 1


@pytest.mark.parametrize(
    ("dataset", "change", "told"),
    [
        ("scanqa", {"ref_captions": []}, "ref_captions must be a list of at least one string, not this list"),
        ("scanqa", {"ref_captions": ["two", 2]}, "ref_captions must be a list of at least one string, which 2 is not"),
        ("sqa3d", {"type_info": 6}, "sqa_type must be one of 0, 1, 2, 3, 4, 5, not 6"),
        ("multi3dref", {"type_info": "st"}, "eval_type must be one of zt_w_d"),
        ("multi3dref", {"type_info": "mt", "ref_captions": []}, "ref_captions is empty, but eval_type has a target"),
        ("scanrefer", {"gt_id": 500}, "obj_id is 500, but scene"),
        ("scan2cap", {"gt_id": -2}, "obj_id must be a non-negative integer, not -2"),
        ("scan2cap", {"pred_id": 500}, "pred_id is 500, but scene"),
    ],
)
def test_questions_are_named_by_their_annotation_file(dataset, change, told):
    records = copy.deepcopy(PREDICTIONS[dataset])
    records[2] |= change
    origin = Origin("annotations/x.json", [10 * number for number in range(len(records))])
    with pytest.raises(DataError) as caught:
        benchmark(dataset).score(records, REFERENCES, meteor=False, origin=origin)
    message = str(caught.value)
    assert message.startswith(f"annotations/x.json: record 20: {told}")
    assert "evaluate again" not in message and "predictions" not in message and "\n" not in message
