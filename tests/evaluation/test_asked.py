"""What was asked: told before a run where it cannot be scored, and after it where it was not all answered once."""

import json

import pytest

from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import DATASETS
from fast3d_core.errors import DataError
from fast3d_core.evaluation.asked import check_references, compare, wording_notes


@pytest.fixture
def folder(files):
    return files / "annotations"


def change(folder, dataset, record, **fields):
    """A record of the annotation file with other fields; None takes one away."""
    path = annotation_file(folder, dataset)
    content = json.loads(path.read_text())
    content[record] |= fields
    content[record] = {name: value for name, value in content[record].items() if value is not None}
    path.write_text(json.dumps(content))
    return path


def check(folder, *datasets):
    check_references({dataset: load_samples(folder, dataset) for dataset in datasets or DATASETS}, folder)


def test_the_miniature_can_be_scored(folder):
    check(folder)


@pytest.mark.parametrize(
    ("dataset", "fields", "told"),
    [
        ("scanqa", {"ref_captions": []}, "ref_captions must be a list of at least one string"),
        ("scanqa", {"ref_captions": None}, "ref_captions must be a list of at least one string"),
        ("scanqa", {"ref_captions": [3]}, "ref_captions must be a list of at least one string, which 3 is not"),
        ("sqa3d", {"sqa_type": 9}, "sqa_type must be one of 0, 1, 2, 3, 4, 5, not 9"),
        ("sqa3d", {"sqa_type": "what"}, "sqa_type must be one of"),
        ("multi3dref", {"eval_type": "many"}, "eval_type must be one of"),
        ("multi3dref", {"eval_type": None}, "eval_type must be one of"),
        ("multi3dref", {"eval_type": "mt", "ref_captions": ["a chair"]}, "ref_captions must be a list of non-negative"),
        ("multi3dref", {"eval_type": "mt", "ref_captions": [999]}, "a target in ref_captions is 999"),
        ("scanrefer", {"obj_id": 999}, "obj_id is 999, but"),
        ("scanrefer", {"obj_id": -3}, "obj_id must be a non-negative integer"),
        ("scan2cap", {"pred_id": 999}, "pred_id is 999, but"),
        ("scan2cap", {"obj_id": 3}, "is not in scan2cap_val_corpus.json (scene_id|obj_id)"),
        ("scan2cap", {"scene_id": "scene0404_00"}, "scene_id: scene0404_00 is not in scannet_mask3d_val"),
    ],
)
def test_file_record_and_field(folder, dataset, fields, told):
    path = change(folder, dataset, 2, **fields)
    with pytest.raises(DataError) as caught:
        check(folder)
    message = str(caught.value)
    assert message.startswith(f"{path}: record 2: ") and told in message
    assert "evaluate again" not in message and "predictions" not in message and "\n" not in message


def test_records_keep_their_numbers_where_some_are_asked(folder):
    change(folder, "scanqa", 2, ref_captions=[])
    with pytest.raises(DataError, match="scanqa_val.json: record 2: "):
        check_references({"scanqa": load_samples(folder, "scanqa")[1:]}, folder)


def test_a_test_split_is_no_error(folder):
    for dataset in ("scanqa", "sqa3d", "multi3dref"):
        for record in range(3):
            change(folder, dataset, record, ref_captions=None, sqa_type=None, eval_type=None)
    check(folder)


def test_wording(folder):
    samples = {dataset: load_samples(folder, dataset) for dataset in DATASETS}
    assert wording_notes(samples) == []
    change(folder, "scanqa", 1, prompt="Where is the trash can?")
    change(folder, "scanrefer", 1, prompt="Which is the trash can?")
    (note,) = wording_notes({dataset: load_samples(folder, dataset) for dataset in DATASETS})
    assert note.startswith(
        'scanqa: 1 of 3 questions do not end with "Answer the question using a single word or phrase."'
    )


def records(folder, dataset):
    return [sample.record("brown") for sample in load_samples(folder, dataset)]


@pytest.mark.parametrize("dataset", DATASETS)
def test_all_answered_once(folder, dataset):
    assert compare(dataset, records(folder, dataset)[::-1], folder) == []


@pytest.mark.parametrize("dataset", DATASETS)
def test_repeated_missing_and_unknown_questions_are_counted(folder, dataset):
    path, answered = annotation_file(folder, dataset), records(folder, dataset)
    (again,) = compare(dataset, [*answered, *answered[:2]], folder)
    assert again.startswith(f"{dataset}: 2 of 5 records repeat a question") and "not those of 3 questions" in again
    (missing,) = compare(dataset, answered[1:], folder)
    assert missing.startswith(f"{dataset}: 1 of the 3 questions in {path.name} are missing")
    other = answered[0] | {"prompt": "who?"}
    unknown, missing = compare(dataset, [*answered[1:], other], folder)
    assert unknown == f"{dataset}: 1 of 3 records are of questions that are not in {path.name}."
    assert "1 of the 3 questions" in missing


def test_a_question_that_the_annotations_repeat_is_not_told(folder):
    path = annotation_file(folder, "scanqa")
    path.write_text(json.dumps(json.loads(path.read_text()) * 2))
    assert compare("scanqa", records(folder, "scanqa"), folder) == []
    assert compare("scanqa", records(folder, "scanqa")[:3], folder) != []


def test_questions_in_other_words(folder):
    """As of another seed of `fast3d prepare`; a repeated one is told all the same."""
    answered = [record | {"prompt": f"{record['prompt']}!"} for record in records(folder, "scanrefer")]
    assert [note.split(" (")[0] for note in compare("scanrefer", answered, folder)] == [
        "scanrefer: no record asks a question in the words of scanrefer_mask3d_val.json"
    ]
    assert len(compare("scanrefer", answered + answered[:1], folder)) == 2


def test_without_the_annotation_file(folder):
    answered = records(folder, "scanqa")
    annotation_file(folder, "scanqa").write_text("[")
    assert "was not looked at" in compare("scanqa", answered, folder)[0]
    annotation_file(folder, "scanqa").unlink()
    assert compare("scanqa", answered, folder) == []
    assert "1 of 4 records repeat" in compare("scanqa", answered + answered[:1], folder)[0]
