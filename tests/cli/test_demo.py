"""`fast3d demo`: all stages from scratch, in miniature: rooms, LLM, attention, GAP, pruning, report."""

import json
import shutil
from functools import partial

import pytest
import torch

from fast3d_core.config import DATASETS, load_config
from fast3d_core.demo import WEIGHTS, demo_folder
from fast3d_core.demo.release import GAP, write_demo
from fast3d_core.gap.checkpoint import load_gap, read_tensors
from tests.demo.test_release import TINY, weights, written  # noqa: F401 (fixtures)
from tools.demo.release import pack_gap

# ruff: noqa: F811


def test_all_stages_from_scratch(weights, written, fast3d, monkeypatch, tmp_path):
    """`fast3d demo --from-scratch --all` on a demo that was made here from nothing."""
    monkeypatch.setattr("fast3d_core.files.cache.CACHE", written.parent)
    done = fast3d("demo", "--from-scratch", "--all", "--samples", "2")
    stages = [line for line in done.stderr.splitlines() if line.startswith("$ fast3d ")]
    assert [line.split()[2] for line in stages] == [
        *("extract", "train-gap", "predict", "eval", "eval"),
        *(["search-alpha", "eval"] * 3),
        "report",
    ]
    folder = tmp_path / "fast3d-demo"
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    results = [json.loads(path.read_text()) for path in (folder / "runs").glob("*/result.json")]
    assert sorted(result["method"] for result in results) == sorted(["vanilla", *["random", "fastv", "gap", "sap"] * 3])
    assert all(sum(result["samples"].values()) == 10 for result in results)
    # A network of its own, which the maps and the alphas come from.
    own = folder / "outputs" / "gap" / "checkpoint_best.safetensors"
    pack_gap(own, tmp_path)
    packed, metadata = read_tensors(tmp_path / GAP)
    assert metadata["heads"] == 8 and all(tensor.dtype == torch.bfloat16 for tensor in packed.values())
    # Packed among the weights, it is what the next demo predicts with.
    again = tmp_path / "again"
    shutil.copytree(weights, again)
    shutil.copy(tmp_path / GAP, again)
    write_demo(tmp_path / "second", again, TINY)
    config = load_config(tmp_path / "second" / "fast3d.yaml")
    assert load_gap(config, torch.device("cpu")).shape.heads == 8
    assert len(list(config.maps.predicted.glob("*.pt"))) == len(DATASETS)


@pytest.fixture
def no_cache(weights, monkeypatch, tmp_path_factory):
    """A machine where no demo was ever written; the one that gets written is smaller. The place it is written to."""
    own = tmp_path_factory.mktemp("own")
    shutil.copytree(weights, own, dirs_exist_ok=True)
    shutil.copy(WEIGHTS / GAP, own)
    monkeypatch.setattr("fast3d_core.demo.release.write_demo", partial(write_demo, weights=own, size=TINY))
    monkeypatch.setattr("fast3d_core.files.cache.CACHE", tmp_path_factory.mktemp("cache") / "new")
    return demo_folder()


def test_a_machine_without_a_cache(fast3d, no_cache, tmp_path):
    """Beside somebody's own work, which is left alone."""
    (tmp_path / "fast3d.yaml").write_text("nonsense: 1")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "pred_attn_maps").write_text("mine")
    done = fast3d("demo", "--samples", "2", "--json")
    assert f"writing the embedded demo to {no_cache}" in done.stderr
    shown = json.loads(done.stdout)
    assert [row["method"] for row in shown["report"]["rows"]] == ["vanilla", "random", "fastv", "gap", "sap"]
    assert shown["bounds"]["scanrefer"]["perfect"] and len(shown["scanqa_exact_match"]) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"fast3d.yaml", "outputs", "fast3d-demo"}
    assert (tmp_path / "outputs" / "pred_attn_maps").read_text() == "mine"
    again = fast3d("demo", "--samples", "2")  # continues: all is there
    assert "writing" not in again.stderr and "exact match" in again.stdout
    done = fast3d("demo", "--samples", "1", check=False)
    assert done.returncode == 2 and "made otherwise (samples)" in done.stderr
    (tmp_path / "fast3d-demo" / "runs" / "vanilla" / "notes.md").write_text("mine")
    (tmp_path / "fast3d-demo" / "outputs" / "thesis.tex").write_text("mine")
    fast3d("demo", "--samples", "1", "--restart")
    assert len(json.loads((tmp_path / "fast3d-demo/runs/vanilla/predictions/scanqa.json").read_text())) == 1
    assert (tmp_path / "fast3d-demo" / "runs" / "vanilla" / "notes.md").read_text() == "mine"
    assert (tmp_path / "fast3d-demo" / "outputs" / "thesis.tex").read_text() == "mine"
    done = fast3d("demo", "--out", "outputs", "--restart", check=False)
    assert done.returncode == 2 and "holds no demo" in done.stderr
    assert (tmp_path / "outputs" / "pred_attn_maps").read_text() == "mine"


def test_an_interrupted_stage_ends_the_demo(fast3d, no_cache, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fast3d_core.gap.predictions.predict_maps", interrupt)
    monkeypatch.setattr("fast3d_core.demo.release.predict_maps", lambda *args: None)
    done = fast3d("demo", "--samples", "1", check=False)
    assert done.returncode == 130 and "$ fast3d eval" not in done.stderr
