import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast3d_core.benchmarks.answers import clean_answer, clean_prediction, exact_match
from fast3d_core.mentions import mentioned

DATA = Path(__file__).parents[1] / "data" / "metrics"


def test_recorded_cleaning():
    recorded = json.loads((DATA / "clean_answer.json").read_text("utf-8"))
    assert {text: clean_answer(text) for text in recorded} == recorded


@pytest.mark.parametrize("dataset", ["scanqa", "sqa3d"])
def test_recorded_predictions_and_matches(dataset):
    """ScanQA's references stay as they are, SQA3D's are cleaned."""
    recorded = json.loads((DATA / "details.json").read_text("utf-8"))[dataset]["cleaned_pred_em_emrefined"]
    records = json.loads((DATA / "preds" / f"preds_{dataset}.json").read_text("utf-8"))
    for record, (cleaned, exact, refined) in zip(records, recorded, strict=True):
        references = record["ref_captions"]
        if dataset == "sqa3d":
            references = [clean_answer(text) for text in references]
        assert clean_prediction(record["pred"]) == cleaned
        assert exact_match(cleaned, references) == (bool(exact), bool(refined)), record


@pytest.mark.parametrize(("number", "word"), [(0, "zero"), (9, "nine"), (13, "thirteen"), (20, "twenty"), (22, "22")])
def test_numbers_become_words_up_to_twenty(number, word):
    assert clean_answer(f"{number}-seat table, {number}!") == f"{word}-seat table, {word}"


@given(st.text("aben t.2T'-\n", max_size=12))
def test_cleaning_keeps_no_capitals_but_tv_and_no_full_stops(text):
    cleaned = clean_answer(text)
    assert "." not in cleaned
    assert cleaned.replace("TV", "tv") == cleaned.lower()
    assert clean_answer(f"  {text}") == clean_answer(text.lstrip(" "))


@given(st.text("ab ", min_size=1, max_size=6), st.lists(st.text("ab ", max_size=6), max_size=3))
def test_an_exact_match_is_a_refined_match(prediction, references):
    exact, refined = exact_match(prediction, references)
    assert exact <= refined
    assert exact == (prediction in references)


def test_an_empty_prediction_matches_nothing():
    assert exact_match("", ["", "chair"]) == (False, False)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Yes. <OBJ003>, <OBJ007>, and <OBJ003>.", [3, 7, 3]),
        ("<OBJ022><OBJ005>", [22, 5]),
        ("<OBJ08> <obj068> <OBJ0056> OBJ003 < OBJ001>", []),
        ("<OBJ٠٠١> <OBJ०१२>", [1, 12]),  # as Python's \d has it
        ("", []),
    ],
)
def test_object_ids(text, ids):
    assert mentioned(text) == ids
