"""`fast3d prepare`: raw releases to annotations, and a report of what was used."""

import json
import shutil

import pytest

from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.data.features import FEATURES_2D, FEATURES_3D
from fast3d_core.files.locks import LOCK_FILE
from tests.prepare.releases import write_labels, write_releases


@pytest.fixture
def raw(tmp_path):
    write_releases(tmp_path / "raw", tmp_path / "annotations")
    return tmp_path / "raw"


def test_report(raw, fast3d, tmp_path):
    dry = fast3d("prepare", "raw", "--dry-run")
    assert "nothing written; would be: scanrefer_mask3d_train.json" in dry.stderr
    assert list((tmp_path / "annotations").glob("*.json")) == []
    done = fast3d("prepare", "raw")
    assert done.stdout == dry.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["scanqa", "train", "3", "2", "3", "1", "no", "answer"] in rows
    assert ["scanrefer", "train", "8", "3", "3", "2", "best", "IoU", "below", "0.5"] in rows
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "scanqa train: 1 of the answers are left out" in done.stderr
    needs = "annotations also needs scannet_mask3d_uni3d_feats.pt, scannet_mask3d_videofeats.pt, which are not made"
    assert needs in done.stderr and "`fast3d download annotations` gets them" in done.stderr
    assert len(list((tmp_path / "annotations").glob("*.json"))) == 11
    assert len(load_samples(tmp_path / "annotations", "scanrefer")) == 5


def test_json(raw, fast3d, tmp_path):
    shutil.rmtree(raw / "SQA3D")
    write_labels(raw)
    options = ("--split", "val", "--seed", "3", "--to", "out", "--json")
    for name in ("scannet_val", "scannet_mask3d_val"):  # boxes may lie beside the releases
        shutil.move(tmp_path / "annotations" / f"{name}_attributes.pt", raw)
    report = json.loads(fast3d("prepare", "raw", *options).stdout)
    assert (report["seed"], report["written"], report["folder"]) == (3, True, "out")
    assert report["missing"] == [
        {
            "dataset": "sqa3d",
            "split": "val",
            "files": ["v1_balanced_questions_val_scannetv2.json", "v1_balanced_sqa_annotations_val_scannetv2.json"],
            "source": "https://zenodo.org/records/7792397",
        }
    ]
    there = {path.name for path in (tmp_path / "out").iterdir()} - {LOCK_FILE}
    assert set(report["files"]) == there
    assert report["parts"][-1] == {
        "dataset": "scanqa",
        "split": "val",
        "sources": ["raw/ScanQA/ScanQA_v1.0_val.json"],
        "file": "scanqa_val.json",
        "read": 3,
        "used": 2,
        "records": 2,
        "dropped": {"no answer": 1},
        "notes": [],
    }
    assert len(report["lacking"]) == 4
    again = json.loads(fast3d("prepare", "raw", *options, "--dry-run").stdout)
    assert {**again, "written": True} == {**report, "files": again["files"]}
    assert set(report["files"]) - set(again["files"]) == {"scanrefer_unique_multiple_lookup.json"}


def test_files_that_are_there(raw, fast3d, tmp_path):
    (tmp_path / "annotations" / "scanqa_val.json").write_text("published")
    done = fast3d("prepare", "raw", check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert "scanqa_val.json is there with another content" in done.stderr and "--replace" in done.stderr
    assert len(list((tmp_path / "annotations").glob("*.json"))) == 1
    fast3d("prepare", "raw", "--replace")
    assert len(load_samples(tmp_path / "annotations", "scanqa")) == 2


@pytest.mark.parametrize(
    "arguments, code, expected",
    [
        (("raw", "--split", "test"), 2, "--split is train, val or all, not 'test'"),
        (("raw", "--dataset", "nr3d"), 2, "there is no 'nr3d'; choose from"),
        (("nowhere",), 1, "there is no folder nowhere"),
        (("annotations",), 1, "annotations has no ScanRefer_filtered_train.json (scanrefer, train); get it from https"),
        (("raw", "--to", "new"), 1, "neither in new nor in raw; boxes are not made here"),
        (("raw", "--to", "raw/ScanQA/ScanQA_v1.0_val.json"), 1, "neither in raw/ScanQA/ScanQA_v1.0_val.json nor"),
    ],
)
def test_what_cannot_be(raw, fast3d, arguments, code, expected):
    done = fast3d("prepare", *arguments, check=False)
    assert done.returncode == code and done.stdout == ""
    assert expected in done.stderr and len(done.stderr.splitlines()) == 1


def test_eval_runs_on_it(fast3d, raw, tmp_path, files):
    """With features for its scenes, the miniature's model evaluates what was prepared."""
    shutil.move(tmp_path / "annotations", tmp_path / "prepared")
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    for name in (FEATURES_3D, FEATURES_2D):
        shutil.copy(tmp_path / "annotations" / name, tmp_path / "prepared")
    fast3d("prepare", "raw", "--to", "prepared", "--split", "val")
    done = fast3d("eval", "--method", "vanilla", "--set", "data.annotations=prepared", "--no-meteor")
    assert "vanilla" in done.stdout
    result = json.loads((tmp_path / "runs" / "vanilla" / "result.json").read_text())
    assert result["samples"] == {"scanrefer": 5, "multi3dref": 5, "scan2cap": 3, "scanqa": 2, "sqa3d": 3}
