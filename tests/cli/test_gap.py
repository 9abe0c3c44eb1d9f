"""The learned half as a user runs it: extract, train-gap, predict, and evaluations guided by what was predicted."""

import json
import shutil

import pytest
import torch

from fast3d_core.config import DATASETS
from fast3d_core.demo import demo_folder
from fast3d_core.evaluation import estimate
from tests.cli.test_eval import comparable, predictions, recorded
from tests.conftest import MINIATURE
from tests.maps.scores import load_maps

SHIPPED = MINIATURE.parent
SMALL = ["--set", "gap.heads=4", "--set", "gap.layers=2"]


def test_predict_then_eval_gives_the_recorded_answers(fast3d, tmp_path):
    done = fast3d("predict", "--json")
    parts = json.loads(done.stdout)
    assert [part["dataset"] for part in parts] == list(DATASETS)
    for part in parts:
        expected = load_maps(SHIPPED / "outputs" / "pred_attn_maps", part["dataset"], 3)
        got = load_maps(tmp_path / "outputs" / "pred_attn_maps", part["dataset"], 3)
        assert part["file"] == str(tmp_path / f"outputs/pred_attn_maps/infer_attn_maps_val_{part['dataset']}.pt")
        assert all((got[i] - expected[i]).abs().max() < 1e-5 for i in range(3))
        assert part["quality"]["samples"] == 3 and part["seconds"] > 0
    fast3d("eval", "-m", "sap", "--alpha", "0.21", "--alpha", "0.5", "--no-meteor")
    fast3d("eval", "-m", "gap", "--layer", "2", "--keep", "15", "--no-meteor")
    fast3d("eval", "-m", "gap", "--layer", "2", "--keep", "60", "--no-meteor")
    for run, mode in {
        "sap-alpha0.21": "sap_gap_K0_alpha0.21",
        "sap-alpha0.5": "sap_gap_K0_alpha0.5",
        "gap-K2-keep15": "map_gap_K2_rank15",
        "gap-K2-keep60": "map_gap_K2_rank60",
    }.items():
        assert predictions(tmp_path / "runs" / run) == recorded(mode)


def test_what_is_predicted_is_not_predicted_again(fast3d, tmp_path):
    fast3d("predict", "--dataset", "scanqa")
    path = tmp_path / "outputs" / "pred_attn_maps" / "infer_attn_maps_val_scanqa.pt"
    before = path.stat().st_mtime_ns
    done = fast3d("predict", "--dataset", "scanqa", "--dataset", "sqa3d")
    assert "predict val sqa3d" in done.stderr and "predict val scanqa" not in done.stderr
    assert path.stat().st_mtime_ns == before
    # Another network: again.
    content = torch.load(SHIPPED / "gap" / "checkpoint_spatial.pth", weights_only=True)
    content["model_state_dict"]["out_head_attn.4.weight"] *= 2
    torch.save(content, tmp_path / "other.pth")
    fast3d("predict", "--dataset", "scanqa", "--set", f"gap.checkpoint={tmp_path / 'other.pth'}")
    assert path.stat().st_mtime_ns != before


@pytest.mark.parametrize("how", ["published", "replaced", "truncated"])
def test_maps_of_others_are_not_overwritten(fast3d, tmp_path, how):
    path = tmp_path / "maps" / "infer_attn_maps_val_scanqa.pt"
    arguments = ["predict", "--dataset", "sqa3d", "--dataset", "scanqa", "--maps", "maps"]
    theirs = (SHIPPED / "outputs" / "pred_attn_maps" / path.name).read_bytes()
    if how == "published":
        path.parent.mkdir()
    else:
        fast3d(*arguments)
    path.write_bytes(theirs if how != "truncated" else path.read_bytes()[:500])
    before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    done = fast3d(*arguments, check=False)
    assert done.returncode == 2 and "did not write (infer_attn_maps_val_scanqa.pt)" in done.stderr
    assert "--restart" in done.stderr and "predict val" not in done.stderr
    assert before == {file.name: file.read_bytes() for file in path.parent.iterdir()}
    fast3d(*arguments, "--restart")
    assert path.read_bytes() not in (theirs, before[path.name])
    fast3d(*arguments)


def test_another_tokeniser_or_number_of_objects_is_predicted_again(fast3d, tmp_path):
    encoder = tmp_path / "encoder"
    shutil.copytree(SHIPPED / "gap" / "roberta_tiny", encoder)
    arguments = ["predict", "--dataset", "scanqa", "--dataset", "scanqa", "--set", f"gap.text_encoder={encoder}"]
    assert len(json.loads(fast3d(*arguments, "--json").stdout)) == 1
    assert "predict val scanqa" not in fast3d(*arguments).stderr
    merges = (encoder / "merges.txt").read_text().splitlines(keepends=True)
    (encoder / "merges.txt").write_text("".join(merges[:-1]))
    assert "predict val scanqa" in fast3d(*arguments).stderr
    done = fast3d(*arguments, "--set", "data.max_objects=50", check=False)
    assert done.returncode == 1 and "was trained on 100" in done.stderr


@pytest.mark.parametrize("how", ["limit", "other annotations"])
def test_partial_targets_are_not_compared_with(fast3d, files, how):
    config = ["-c", files / "fast3d.yaml", "--dataset", "scanqa"]
    fast3d("extract", *config, "--restart", "--split", "val", *(["--limit", "1"] if how == "limit" else []))
    if how != "limit":
        path = files / "annotations" / "scanqa_val.json"
        path.write_text(path.read_text() + " ")
    (part,) = json.loads(fast3d("predict", *config, "--maps", "new", "--json").stdout)
    assert part["quality"] is None
    assert "val scanqa: not compared: " in fast3d("predict", *config, "--maps", "new").stderr


def test_live_maps_give_the_answers_of_maps_from_files(fast3d, tmp_path):
    methods = ["-m", "gap", "--layer", "2", "--keep", "15", "-m", "sap", "--alpha", "0.5", "--no-meteor"]
    fast3d("eval", *methods)
    fast3d("eval", *methods, "--gap", "live")
    for name in ("gap-K2-keep15", "sap-alpha0.5"):
        files, live = (tmp_path / "runs" / f"{name}{suffix}" for suffix in ("", "-live"))
        assert predictions(files) == predictions(live)
        results = [json.loads((folder / "result.json").read_text()) for folder in (files, live)]
        assert results[0]["pruning"] == results[1]["pruning"]
        assert results[0]["cost"]["gap_flops"] is None and results[0]["timing"]["gap_seconds"] is None
        assert results[1]["cost"]["gap_flops"] > 1e7
        assert 0 < results[1]["timing"]["gap_seconds"] < results[1]["timing"]["seconds"]
        assert "checkpoint_spatial.pth" in results[1]["settings"]["files"]


def test_an_alpha_of_another_network_is_refused(fast3d, tmp_path):
    search = ["search-alpha", "--maps", "maps", "--dataset", "scanqa"]
    live = ["eval", "-m", "sap", "--gap", "live", "--dataset", "scanqa", "--no-meteor", "--dry-run"]
    fast3d("predict", "--dataset", "scanqa", "--maps", "maps")
    fast3d(*search)
    assert "not known" not in fast3d(*live).stderr
    content = torch.load(SHIPPED / "gap" / "checkpoint_spatial.pth", weights_only=True)
    content["model_state_dict"]["out_head_attn.4.weight"] *= 2
    torch.save(content, tmp_path / "other.pth")
    done = fast3d(*live, "--set", "gap.checkpoint=other.pth", check=False)
    assert done.returncode == 1 and "maps of another network" in done.stderr
    (tmp_path / "maps" / "predicted.json").unlink()
    fast3d(*search)
    assert "it is not known whether alpha was found on maps by" in fast3d(*live).stderr


def test_a_live_run_continues_and_is_read_back(fast3d, tmp_path):
    arguments = ["eval", "-m", "sap", "--alpha", "0.5", "--no-meteor", "--gap", "live", "--set", "eval.batch_size=2"]
    fast3d(*arguments)
    run = tmp_path / "runs" / "sap-alpha0.5-live"
    whole, before = predictions(run), json.loads((run / "result.json").read_text())
    part = run / "part-000-00.jsonl"
    part.write_text("".join(part.read_text().splitlines(keepends=True)[::2]))
    fast3d(*arguments)
    assert predictions(run) == whole
    assert comparable(json.loads((run / "result.json").read_text())) == comparable(before)
    assert "loading the model" not in fast3d(*arguments).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "vanilla", "--gap", "live"], "--gap live means nothing to vanilla"),
        (["-m", "sap", "--alpha", "0.5", "--gap", "live", "--maps", "x"], "--maps means nothing with --gap live"),
        (["-m", "sap", "--alpha", "0.5", "--gap", "lively"], "--gap is files or live"),
        (["-m", "sap", "--alpha", "0.5", "--gap", "live", "--set", "gap.checkpoint=x.pth"], "x.pth does not exist"),
    ],
)
def test_live_bad_input(fast3d, arguments, message):
    done = fast3d("eval", *arguments, check=False)
    assert done.returncode in (1, 2) and message in done.stderr and "Traceback" not in done.stderr


def test_from_extraction_to_a_trained_network(fast3d, tmp_path):
    """The whole half on the miniature: what train-gap wrote, predict and a live evaluation take."""
    common = ["--dataset", "scanqa", "--dataset", "sqa3d"]
    fast3d("extract", *common, "--targets", "odd: name")
    assert not (tmp_path / "outputs").exists()
    fast3d("extract", *common)
    arguments = ["train-gap", *common, "--epochs", "2", "--batch-size", "4", "--layers", "from:2", *SMALL]
    done = fast3d(*arguments, "--out", "trained", "--export", "published.pth", "--json")
    trained = json.loads(done.stdout)
    assert trained["steps"] == 4 and set(trained["quality"]) == {"scanqa", "sqa3d"}
    assert "epoch 2: loss" in done.stderr
    maps = []
    for checkpoint in ("trained/checkpoint_best.safetensors", "published.pth"):
        fast3d("predict", *common, *SMALL, "--checkpoint", checkpoint, "--maps", "maps", "--layers", "3")
        maps.append(load_maps(tmp_path / "maps", "scanqa", 3))
    assert all(torch.equal(maps[0][i], maps[1][i]) for i in range(3))
    chosen = ["--set", "gap.checkpoint=published.pth", "--gap", "live", "--no-meteor", *common]
    fast3d("eval", "-m", "sap", "--alpha", "0.5", *chosen)
    # Without other words it goes where gap.checkpoint is looked for, but never into the package.
    fast3d(*arguments)
    assert (tmp_path / "gap" / "checkpoint_best.safetensors").exists()
    refused = fast3d(*arguments, check=False)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    assert "4 steps, 4 of them done before" in fast3d(*arguments, "--resume").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--targets", "nowhere"], 1, "nowhere"),
        (["--dataset", "scanqq"], 2, "there is no 'scanqq'"),
        (["--val-dataset", "scanqq"], 2, "--val-dataset: there is no 'scanqq'"),
        (["--map-key", "b"], 2, "--map-key must be one of"),
        (["--precision", "int8"], 2, "--precision must be fp32 or bf16"),
        (["--export", "x.bin"], 2, "a .pth file, not 'x.bin'"),
        (["--text-encoder", "./nothing"], 1, "gap.text_encoder"),
        (["--set", "gap.heads=7"], 2, "7 heads do not divide the text encoder's width, 48"),
        (["--layers", "from:9"], 2, "--layers"),
    ],
)
def test_train_gap_bad_input(fast3d, tmp_path, arguments, code, message):
    fast3d("extract", "--dataset", "scanqa")
    base = [] if "--dataset" in arguments else ["--dataset", "scanqa"]
    done = fast3d("train-gap", *base, *arguments, check=False)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "gap").exists()


def test_targets_of_other_annotations_are_refused(fast3d, tmp_path, files):
    config = ["-c", files / "fast3d.yaml", "--dataset", "scanqa"]
    fast3d("extract", *config, "--restart")
    path = files / "annotations" / "scanqa_train.json"
    records = json.loads(path.read_text())
    records[0]["prompt"] = "Where is the door?"
    path.write_text(json.dumps(records))
    done = fast3d("train-gap", *config, *SMALL, check=False)
    assert done.returncode == 1 and "other annotations" in done.stderr
    records.append(records[0])
    path.write_text(json.dumps(records))
    done = fast3d("train-gap", *config, *SMALL, check=False)
    assert done.returncode == 1 and "run `fast3d extract" in done.stderr


def test_tables_stay_whole_at_80_columns(fast3d, monkeypatch):
    monkeypatch.setattr("fast3d_cli.console.out.width", 80)
    shown = fast3d("predict", "--dataset", "multi3dref", "--split", "all").stdout
    assert "train multi3dref " in shown and max(map(len, shown.splitlines())) <= 80
    shown = fast3d("eval", "-m", "sap", "--alpha", "0.21", "--gap", "live", "--limit", "1", "--no-meteor").stdout
    assert "sap-alpha0.21-live " in shown and max(map(len, shown.splitlines())) <= 80


def test_a_dry_run_counts_live_maps(fast3d, monkeypatch):
    rates = estimate.Rates(torch.device("cpu"), 1e9, 1e30)  # arithmetic alone counts
    monkeypatch.setattr(estimate, "measure", lambda *_: rates)
    dry = ["eval", "-m", "sap", "--alpha", "0.21", "--dataset", "scanqa", "--dry-run", "--json"]
    seconds = [json.loads(fast3d(*dry, *more).stdout)["seconds"] for more in ([], ["--gap", "live"])]
    assert seconds[1] - seconds[0] > 3 * 1e7 / 1e9


def test_the_embedded_demo_by_its_name(fast3d):
    done = fast3d("predict", "--dataset", "scanqa", "-c", demo_folder() / "fast3d.yaml")
    assert "using the embedded demo" in done.stderr and "no config given" not in done.stderr


def test_files_are_as_readable_as_others(fast3d, tmp_path):
    fast3d("extract", "--dataset", "scanqa")
    fast3d("train-gap", "--dataset", "scanqa", "--epochs", "1", *SMALL)
    (tmp_path / "other").touch()
    modes = {path.stat().st_mode for path in tmp_path.rglob("*.safetensors")}
    assert modes == {(tmp_path / "other").stat().st_mode}
