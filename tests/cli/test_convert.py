"""`fast3d convert`, and commands that read what it wrote: the same answers, and runs that go on."""

import json
import os

import pytest
from safetensors.torch import load_file

from fast3d_core.data.features import FEATURES_3D
from fast3d_core.files.files import load_torch
from tests.conftest import MINIATURE

EVAL = ["eval", "-m", "vanilla", "-m", "gap", "--layer", 2, "--keep", 15, "--gap", "live", "--no-meteor"]
CONVERTED = [
    *("--set", "model.checkpoint=ckpt_01_3446.safetensors"),
    *("--set", "gap.checkpoint=gap/checkpoint_spatial.safetensors"),
]
GREEDY = ["--set", "generation.beams=1", "--set", "eval.batch_size=2"]


@pytest.fixture
def here(fast3d, files, tmp_path):
    """The miniature under the current folder, where the command runs."""
    for path in files.iterdir():
        path.rename(tmp_path / path.name)
    return tmp_path


def predictions(folder):
    return {path.relative_to(folder): path.read_text() for path in folder.glob("*/predictions/*.json")}


def test_a_dry_run_writes_nothing(fast3d, here):
    before = sorted(here.rglob("*"))
    done = fast3d("convert", "--dry-run")
    assert "scannet_mask3d_uni3d_feats.pt" in done.stdout and done.stdout.count("to do") == 4
    assert sorted(here.rglob("*")) == before
    states = [one["state"] for one in json.loads(fast3d("convert", "gap", "features", "--dry-run", "--json").stdout)]
    assert states == ["to do"] * 3


def test_answers_and_runs_go_on(fast3d, here):
    """An interrupted run is continued on converted files, and its answers are those of the released ones."""
    fast3d(*EVAL, *GREEDY)
    whole = predictions(here / "runs")
    assert len(whole) == 10
    for run in (here / "runs").iterdir():
        (run / "result.json").unlink()
        part = run / "part-000-00.jsonl"
        part.write_text("".join(part.read_text().splitlines(keepends=True)[:3]))
    done = fast3d("convert")
    assert done.stdout.split() == [str(here / name) for name in (
        "annotations/scannet_mask3d_uni3d_feats.safetensors", "annotations/scannet_mask3d_videofeats.safetensors",
        "ckpt_01_3446.safetensors", "gap/checkpoint_spatial.safetensors")]  # fmt: skip
    assert "packing scannet_mask3d_uni3d_feats.pt: 3 scenes" in done.stderr
    assert f"set model.checkpoint to {here / 'ckpt_01_3446.safetensors'}" in done.stderr
    (here / "annotations" / FEATURES_3D).unlink()
    said = fast3d(*EVAL, *GREEDY, *CONVERTED).stderr
    assert "done before" in said
    assert predictions(here / "runs") == whole
    fast3d(*EVAL, *GREEDY, *CONVERTED, "--name", "anew")
    anew = {path: text for path, text in predictions(here / "runs").items() if path.parts[0].startswith("anew-")}
    assert sorted(anew.values()) == sorted(whole.values())


def test_other_commands_read_converted_files(fast3d, here):
    """extract and predict leave the same maps behind, and take what they left before for their own."""
    targets = ["--set", "maps.targets=t", "--set", "maps.predicted=p", "--dataset", "scanqa"]
    fast3d("extract", *targets)
    fast3d("predict", *targets)
    kept = {path: path.read_bytes() for folder in ("t", "p") for path in (here / folder).iterdir()}
    fast3d("convert", "--json")
    fast3d("extract", *targets, *CONVERTED)
    fast3d("predict", *targets, *CONVERTED)
    assert {path: path.read_bytes() for path in kept} == kept  # nothing was made again
    for name, command in (("t", "extract"), ("p", "predict")):
        (here / name).rename(here / f"old-{name}")
        fast3d(command, *targets, *CONVERTED)
    for old, new in (("old-t", "t"), ("old-p", "p")):
        assert _maps(here / old) == _maps(here / new)


def _maps(folder):
    """Every number of the maps in a folder."""
    numbers = {}
    for path in folder.iterdir():
        if path.suffix == ".pt":
            numbers |= {(path.name, i): one["a_map"].tolist() for i, one in load_torch(path, "x").items()}
        if path.suffix == ".safetensors":
            numbers |= {(path.name, name): tensor.tolist() for name, tensor in load_file(path).items()}
    assert numbers
    return numbers


def test_stale_features_stop_a_run(fast3d, here):
    fast3d("convert", "features")
    path = here / "annotations" / FEATURES_3D
    path.write_bytes(path.read_bytes() + b"\0")
    done = fast3d(*EVAL, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("run `fast3d convert` again, or delete it")


def test_the_demo_is_left_alone(fast3d, tmp_path):
    done = fast3d("convert", check=False)
    assert done.returncode == 2 and "the embedded demo needs no conversion" in done.stderr
    fast3d("convert", "--to", tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 4
    assert not list(MINIATURE.parent.rglob("*feats.safetensors"))


def test_bad_usage(fast3d, here):
    done = fast3d("convert", "al", check=False)
    assert done.returncode == 2 and "there is no 'al' to convert" in done.stderr
    os.truncate(here / "annotations" / FEATURES_3D, 1000)
    done = fast3d("convert", check=False)
    assert done.returncode == 1 and "is it a complete download?" in done.stderr
