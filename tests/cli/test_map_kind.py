"""SAP on maps of shares, and maps of unknown questions: `eval`, `search-alpha`, `report`."""

import json
import shutil

import pytest
import torch

from fast3d_core.files.files import load_json
from tests.cli.test_search_alpha import error
from tests.conftest import MINIATURE
from tests.maps.scores import load_maps

TARGETS = MINIATURE.parent / "outputs" / "infer_attn_maps"
PREDICTED = MINIATURE.parent / "outputs" / "pred_attn_maps"
DATA = ["--dataset", "scanqa", "--no-meteor"]
SHARES = ["--map-kind", "shares"]
UNKNOWN = "the maps of scanqa were made elsewhere"


def test_eval_refuses_shares_unless_told(fast3d, tmp_path):
    sap = ["eval", "-m", "sap", "--alpha", "0.5", "--maps", TARGETS, *DATA]
    assert "holds shares of attention" in error(fast3d(*sap, check=False), 1)
    assert "holds shares of attention" in error(fast3d(*sap, "--dry-run", check=False), 1)
    assert not (tmp_path / "runs").exists()
    fast3d(*sap, *SHARES)
    folder = tmp_path / "runs" / "sap-alpha0.5"
    assert load_json(folder / "settings.json", "")["map_kind"] == "shares"
    maps = load_maps(TARGETS, "scanqa", 3)
    for part in folder.glob("part-*.jsonl"):
        for sample in json.loads(part.read_text())["samples"]:
            parts = (maps[sample["index"]].double() / maps[sample["index"]].double().sum()).sort(descending=True).values
            assert len(sample["stages"][0][1]) == 3 * (int((parts.cumsum(0) < 0.5).sum()) + 1)
    assert "loading the model" not in fast3d(*sap, *SHARES).stderr
    other = fast3d(*sap, "--map-kind", "logits", check=False)
    assert 'map_kind: "shares" -> "logits"' in error(other, 2)


def test_what_was_said_is_part_of_the_settings_of_sap_alone(fast3d, tmp_path):
    fast3d(
        "eval",
        "-m",
        "gap",
        "-m",
        "sap",
        "--layer",
        "2",
        "--keep",
        "15",
        "--alpha",
        "0.5",
        "--maps",
        TARGETS,
        *SHARES,
        *DATA,
    )
    runs = tmp_path / "runs"
    assert load_json(runs / "sap-alpha0.5" / "settings.json", "")["map_kind"] == "shares"
    assert "map_kind" not in load_json(runs / "gap-K2-keep15" / "settings.json", "")
    fast3d("eval", "-m", "sap", "--alpha", "0.4", *DATA)
    assert "map_kind" not in load_json(runs / "sap-alpha0.4" / "settings.json", "")
    done = fast3d("doctor", "--set", f"maps.predicted={TARGETS}", check=False)
    assert "sap-alpha0.5 was made" not in done.stdout


@pytest.mark.parametrize(("options", "problem"), [
    (["-m", "gap", "--layer", "1", "--keep", "9", *SHARES], "--map-kind means nothing to gap"),
    (["-m", "sap", "--alpha", "0.5", "--gap", "live", *SHARES], "--map-kind means nothing with --gap live"),
    (["-m", "sap", "--alpha", "0.5", "--map-kind", "share"], "--map-kind must be one of logits, shares, not 'share'"),
])  # fmt: skip
def test_kinds_that_mean_nothing(fast3d, options, problem):
    assert problem in error(fast3d("eval", *options, *DATA, check=False), 2)


def test_search_alpha(fast3d, tmp_path):
    search = ["search-alpha", "--maps", TARGETS, "--dataset", "scanqa", "--target", "80", "--tolerance", "5"]
    assert "holds shares of attention" in error(fast3d(*search, check=False), 1)
    assert "must be one of" in error(fast3d(*search, "--map-kind", "x", check=False), 2)
    found = json.loads(fast3d(*search, *SHARES, "--json").stdout)
    assert found["map_kind"] == "shares" and found["valid"]
    sap = ["eval", "-m", "sap", "--maps", TARGETS, *DATA]
    wrong = error(fast3d(*sap, check=False), 1)
    assert "it was found with --map-kind shares, and is wanted without --map-kind" in wrong
    fast3d(*sap, *SHARES)
    result = load_json(tmp_path / "runs" / f"sap-alpha{found['alpha']}" / "result.json", "")
    assert result["pruning"]["ratio"] == pytest.approx(found["ratio"], abs=1)
    damaged = load_json(tmp_path / "runs" / "alpha.json", "") | {"map_kind": "x"}
    (tmp_path / "runs" / "alpha.json").write_text(json.dumps(damaged))
    assert "map_kind is 'x': input should be 'logits' or 'shares'" in error(fast3d(*sap, *SHARES, check=False), 1)


def test_a_dict_of_what_looks_like_shares(fast3d, tmp_path):
    rows = {i: {"a_map": torch.rand(100) / 100} for i in range(3)}
    (tmp_path / "maps").mkdir()
    torch.save(rows, tmp_path / "maps" / "infer_attn_maps_val_scanqa.pt")
    sap = ["eval", "-m", "sap", "--alpha", "0.5", "--maps", "maps", *DATA]
    assert "say which they are with --map-kind shares or --map-kind logits" in error(fast3d(*sap, check=False), 1)
    for kind in ("shares", "logits"):
        fast3d(*sap, "--map-kind", kind, "--name", kind)
    fast3d("eval", "-m", "gap", "--layer", "1", "--keep", "9", "--maps", "maps", *DATA)


def test_maps_of_unknown_questions_are_told_of_once(fast3d, files, tmp_path):
    config = ["-c", files / "fast3d.yaml", *DATA]
    methods = ["-m", "gap", "-m", "sap", "--layer", "2", "--keep", "15", "--alpha", "0.5"]
    done = fast3d("eval", *methods, *config, "--json")
    assert done.stderr.count(UNKNOWN) == 1 and json.loads(done.stdout)
    assert f"of those in {files / 'annotations'}" in done.stderr
    assert UNKNOWN not in fast3d("eval", "-m", "vanilla", *config).stderr
    assert UNKNOWN not in fast3d("eval", *methods, *DATA).stderr  # the embedded demo's own
    fast3d("predict", "-c", files / "fast3d.yaml", "--restart")
    assert UNKNOWN not in fast3d("eval", *methods, *config, "--restart").stderr


def test_maps_of_other_questions_are_refused(fast3d, files):
    config = ["-c", files / "fast3d.yaml"]
    fast3d("predict", *config, "--restart")
    maps = files / "outputs" / "pred_attn_maps"
    shutil.copy(maps / "infer_attn_maps_val_scanqa.pt", maps / "infer_attn_maps_val_sqa3d.pt")
    sap = ["-m", "sap", "--alpha", "0.5"]
    for command in (["eval", *sap, "--no-meteor"], ["search-alpha"]):
        assert "val_sqa3d.pt is a copy of the maps of val/scanqa" in error(fast3d(*command, *config, check=False), 1)
    assert "val_sqa3d.pt is a copy of the maps of val/scanqa" in " ".join(
        fast3d("doctor", *config, check=False).stdout.split()
    )


def test_the_report_shows_no_attention_of_other_questions(fast3d, files):
    config = ["-c", files / "fast3d.yaml"]
    fast3d("predict", *config, "--restart")
    fast3d("eval", "-m", "vanilla", *config, *DATA)
    maps = files / "outputs" / "pred_attn_maps"
    shutil.copy(maps / "infer_attn_maps_val_sqa3d.pt", maps / "infer_attn_maps_val_scanqa.pt")
    done = fast3d("report", *config, "--html", "page.html", "--resamples", "100")
    assert "the scene browser shows no attention" in done.stderr and "is a copy of the maps of val/sqa3d" in done.stderr
