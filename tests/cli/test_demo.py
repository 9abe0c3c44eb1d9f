"""`fast3d demo`: all stages from scratch, in miniature: rooms, LLM, attention, GAP, pruning, report."""

import json
import shutil

import torch

from fast3d_core.config import DATASETS, EMBEDDED, load_config
from fast3d_core.demo.release import GAP, pack_gap, write_demo
from fast3d_core.gap.checkpoint import load_gap, read_tensors
from tests.demo.test_release import TINY, weights, written  # noqa: F401 (fixtures)

# ruff: noqa: F811


def test_all_stages_from_scratch(weights, written, fast3d, monkeypatch, tmp_path):
    """`fast3d demo --from-scratch --all` on a demo that was made here from nothing."""
    monkeypatch.setattr("fast3d_core.config.EMBEDDED", written / "fast3d.yaml")
    done = fast3d("demo", "--from-scratch", "--all", "--samples", "2")
    stages = [line for line in done.stderr.splitlines() if line.startswith("$ fast3d ")]
    assert [line.split()[2] for line in stages] == [
        *("download", "extract", "train-gap", "predict", "eval", "eval"),
        *(["search-alpha", "eval"] * 3),
        "report",
    ]
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/result.json")]
    assert sorted(result["method"] for result in results) == sorted(["vanilla", *["random", "fastv", "gap", "sap"] * 3])
    assert all(sum(result["samples"].values()) == 10 for result in results)
    # A network of its own, which the maps and the alphas come from.
    own = tmp_path / "outputs" / "gap" / "checkpoint_best.safetensors"
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


def test_download(fast3d, tmp_path):
    assert fast3d("download", "demo").stdout.strip() == str(EMBEDDED.parent)
    assert json.loads(fast3d("download", "demo", "--json").stdout) == {"demo": str(EMBEDDED.parent)}
    done = fast3d("download", "vicuna-13b", check=False)
    assert done.returncode == 2 and "choose from demo" in done.stderr
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    done = fast3d("download", "demo", "--to", "there", check=False)
    assert done.returncode == 2 and "name a new folder" in done.stderr
