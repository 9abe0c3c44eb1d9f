"""What scoring finds out: before a run, or in a note, and never at the cost of another dataset."""

import json
import re

import pytest

from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import DATASETS


@pytest.fixture
def annotations(files):
    return files / "annotations"


def rewrite(annotations, dataset, change):
    path = annotation_file(annotations, dataset)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return path


def without_answers(content):
    return [{k: v for k, v in record.items() if k != "ref_captions"} for record in content]


def lacking_one(content):
    content[1]["ref_captions"] = []
    return content


def run_eval(fast3d, files, *args, check=True):
    return fast3d("eval", "--config", files / "fast3d.yaml", "--method", "vanilla", "--no-meteor", *args, check=check)


def predict(files, folder, dataset, change=lambda records: records):
    """The right answers in the published record format."""
    folder.mkdir(exist_ok=True)
    samples = load_samples(files / "annotations", dataset)
    records = [sample.record(str((*sample.ref_captions, "no")[0])) for sample in samples]
    (folder / f"{dataset}.json").write_text(json.dumps(change(records)))


def run_score(fast3d, files, folder, *args, check=True):
    return fast3d("score", folder, "--config", files / "fast3d.yaml", "--no-meteor", *args, check=check)


def test_nothing_is_answered_where_a_reference_is_missing(fast3d, files, annotations):
    path = rewrite(annotations, "scanqa", lacking_one)
    done = run_eval(fast3d, files, "--dataset", "scanrefer", "--dataset", "scanqa", check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("error: ") == 1 and f"{path}: record 1: ref_captions must be" in done.stderr
    assert "loading" not in done.stderr and not list(files.glob("runs/*"))


def test_a_test_split_gives_predictions(fast3d, files, annotations):
    rewrite(annotations, "scanqa", without_answers)
    done = run_eval(fast3d, files, "--dataset", "scanqa", "--dataset", "scanrefer", "--json")
    result = json.loads(done.stdout)
    assert result["headline"]["scanqa"] is None and result["headline"]["scanrefer"] is not None
    note = "scanqa: the questions come without answers, as in test splits, so its scores are null."
    assert note in result["notes"] and note in done.stderr
    (predictions,) = files.glob("runs/vanilla/predictions/scanqa.json")
    assert len(json.loads(predictions.read_text())) == 3
    scored = json.loads(run_score(fast3d, files, files / "runs" / "vanilla", "--json").stdout)
    assert scored["metrics"] == result["metrics"]
    assert fast3d("report", "--config", files / "fast3d.yaml", "--html", files / "page.html").returncode == 0


def test_questions_without_their_ending_are_told_first_and_kept(fast3d, files, annotations):
    rewrite(annotations, "scanqa", lambda content: [r | {"prompt": r["prompt"].split("?")[0] + "?"} for r in content])
    done = run_eval(fast3d, files, "--dataset", "scanqa", "--json")
    told = "3 of 3 questions do not end with"
    assert done.stderr.count(told) == 1 and done.stderr.index(told) < done.stderr.index("scanqa: 3 samples")
    assert any(told in note for note in json.loads(done.stdout)["notes"])


@pytest.mark.parametrize("as_json", [True, False])
def test_a_repeated_question_is_told(fast3d, files, as_json):
    predict(files, files / "whole", "scanqa", lambda records: [*records[:2], records[2] | {"pred": "wrong"}])
    predict(
        files, files / "padded", "scanqa", lambda records: [*records[:2], records[2] | {"pred": "wrong"}, records[0]]
    )
    args = ["--json"] if as_json else []
    whole, padded = (run_score(fast3d, files, files / name, *args) for name in ("whole", "padded"))
    told = "scanqa: 1 of 4 records repeat a question"
    assert told in padded.stderr and "repeat" not in whole.stderr
    if as_json:
        rates = [json.loads(done.stdout)["metrics"]["[scanqa] EM1"] for done in (whole, padded)]
        assert rates == [1 / 3, 2 / 4]
        assert any(told in note for note in json.loads(padded.stdout)["notes"])


def test_one_dataset_that_cannot_be_scored_costs_no_other_its_result(fast3d, files):
    for dataset in DATASETS:
        predict(files, files / "given", dataset)
    whole = json.loads(run_score(fast3d, files, files / "given", "--json").stdout)
    predict(files, files / "given", "sqa3d", lambda records: [record | {"type_info": 7} for record in records])
    done = run_score(fast3d, files, files / "given", "--json", "--name", "given", check=False)
    assert done.returncode == 1
    assert len(re.findall("^error: sqa3d predictions, record 0: type_info must be one of", done.stderr, re.M)) == 1
    part = json.loads(done.stdout)
    assert {k: v for k, v in part["metrics"].items() if "sqa3d" not in k} == {
        k: v for k, v in whole["metrics"].items() if "sqa3d" not in k
    }
    assert part["headline"]["sqa3d"] is None and {v for k, v in part["metrics"].items() if "sqa3d" in k} == {None}
    assert any(note.startswith("sqa3d: not scored: sqa3d predictions, record 0") for note in part["notes"])
    (files / "given" / "sqa3d.json").write_text("null")
    done = run_score(fast3d, files, files / "given", "--json", check=False)
    assert done.returncode == 1 and "sqa3d predictions: they must be a list of records" in done.stderr
    assert json.loads(done.stdout)["samples"] == dict.fromkeys(DATASETS, 3) | {"sqa3d": 0}
    alone = run_score(fast3d, files, files / "given", "--dataset", "sqa3d", check=False)
    assert alone.returncode == 1 and alone.stdout == ""


def test_an_end_of_meteor_costs_no_result(fast3d, files, monkeypatch):
    monkeypatch.setattr("fast3d_core.benchmarks.meteor._running", None)
    monkeypatch.setattr("fast3d_core.benchmarks.meteor.available", lambda: None)
    script = files / "java.sh"
    script.write_text("#!/bin/sh\necho 'Could not reserve enough space' >&2\necho more >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr("fast3d_core.benchmarks.meteor._program", lambda: [str(script)])
    done = fast3d("eval", "--config", files / "fast3d.yaml", "--method", "vanilla", "--dataset", "scanqa", "--json")
    result = json.loads(done.stdout)
    assert result["metrics"]["[scanqa] METEOR"] is None and result["metrics"]["[scanqa] Bleu_1"] is not None
    note = "METEOR is null: the Java program stopped: Could not reserve enough space; it needs 2 GB of memory"
    assert note in result["notes"] and note in done.stderr


def test_prepare_follows_max_objects(fast3d, files, tmp_path):
    from tests.prepare.releases import VAL, said, write_boxes, write_json

    raw, folder, exact = tmp_path / "raw", tmp_path / "made", [0.0, 0, 0.5, 1, 1, 1]
    write_boxes(folder, "val", {VAL: [exact]}, {VAL: [*([-5.0 * i, 9, 9, 1, 1, 1] for i in range(104)), exact]})
    write_json(raw / "ScanRefer_filtered_val.json", [said("val", 0, 0, "a chair")])
    options = ["prepare", raw, "--to", folder, "--dataset", "scanrefer", "--split", "val", "--replace"]

    def prepared(*more):
        fast3d(*options, *more)
        return json.loads((folder / "scanrefer_mask3d_val.json").read_text())[0]["ref_captions"]

    assert prepared() == ["<OBJ000>."]
    assert prepared("--config", files / "fast3d.yaml", "--set", "data.max_objects=105") == ["<OBJ104>."]
    (tmp_path / "fast3d.yaml").write_text("data: {max_objects: 110}\n")
    assert prepared() == ["<OBJ104>."]


def test_a_damaged_lookup_costs_scanrefer_alone_its_scores(fast3d, files):
    arguments = ("-c", files / "fast3d.yaml", "--no-meteor", "--json")
    fast3d("eval", "--method", "vanilla", *arguments, "--set", "generation.max_new_tokens=2")
    (files / "annotations" / "scanrefer_unique_multiple_lookup.json").write_text("{")
    done = fast3d("score", files / "runs" / "vanilla", *arguments, check=False)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert result["headline"]["scanrefer"] is None and result["headline"]["scanqa"] is not None
    assert "lookup.json" in done.stderr
