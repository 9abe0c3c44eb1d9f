"""`fast3d search-alpha` as a user runs it, and `fast3d eval --method sap` with the alpha that it found."""

import json
import shutil

import pytest
import torch

from fast3d_core.config import DATASETS
from fast3d_core.files.fingerprints import fingerprint
from tests.cli.conftest import ROOT

RECORDED = ROOT / "tests/data/search_alpha"
MAPS = RECORDED / "pred_attn_maps"
EXPECTED = json.loads((RECORDED / "expected.json").read_text())
DRY = ["--dry-run", "--json"]


def error(done, code):
    """The one error line of a command that failed."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines == done.stderr.splitlines()[-1:]
    return lines[0]


def change(path, how):
    content = torch.load(path, weights_only=True)
    how(content)
    torch.save(content, path)


@pytest.fixture
def maps(tmp_path):
    """A copy of the recorded maps that a test may change."""
    return shutil.copytree(MAPS, tmp_path / "maps")


def test_ctrl_c_is_one_line(fast3d, maps, monkeypatch):
    """Of every command: this one has no words of its own for it."""

    def interrupt(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("fast3d_core.evaluation.search_alpha.write_alpha", interrupt)
    done = fast3d("search-alpha", "--maps", maps, check=False)
    assert done.returncode == 130 and done.stdout == ""
    assert done.stderr.endswith("interrupted; what is done is kept, the same command does the rest\n")


@pytest.mark.parametrize("alpha", EXPECTED)
def test_check_as_recorded(fast3d, tmp_path, alpha):
    found = json.loads(fast3d("search-alpha", "--maps", MAPS, "--alpha", alpha, "--json").stdout)
    recorded = EXPECTED[alpha]
    assert found["alpha"] == float(alpha)
    assert found["ratio"] == pytest.approx(recorded["final_average_pruning_ratio"], abs=1e-9)
    assert (found["valid"], found["target"], found["tolerance"]) == (recorded["is_valid"], 90, 2)
    assert set(found["datasets"]) == set(DATASETS)
    for name, entry in recorded["per_dataset"].items():
        one = found["datasets"][name]
        assert one["ratio"] == pytest.approx(entry["average_pruning_ratio"], abs=1e-9)
        assert one["reference_alpha"] == pytest.approx(entry["reference_alpha"], abs=1e-5)
        assert sum(one["histogram"]) == 200
        assert len(one["histogram"]) == len(found["bin_edges"]) - 1 == 20
    assert not (tmp_path / "runs").exists()


def test_search_writes_what_it_found(fast3d, tmp_path):
    done = fast3d("search-alpha", "--maps", MAPS, "--json")
    found = json.loads(done.stdout)
    assert found["valid"] and found["ratio"] == pytest.approx(90, abs=0.001)
    path = tmp_path / "runs" / "alpha.json"
    assert f"written to {path}" in done.stderr
    assert json.loads(path.read_text()) == {
        "alpha": found["alpha"],
        "target": 90,
        "tolerance": 2,
        "ratio": found["ratio"],
        "map_key": "a_map",
        "maps": {name: fingerprint(MAPS / f"infer_attn_maps_val_{name}.pt") for name in DATASETS},
        "checkpoint": None,
    }
    again = fast3d("search-alpha", "--maps", MAPS, "--alpha", found["alpha"], "--json")
    assert json.loads(again.stdout) == found


def test_table(fast3d):
    done = fast3d("search-alpha", "--maps", MAPS, "--alpha", "0.4", "--dataset", "scanqa", "--dataset", "sqa3d")
    (row,) = [line for line in done.stdout.splitlines() if "scanqa" in line]
    assert row.split()[:6] == ["scanqa", "200", "74.27%", "1", "28", "36"]
    assert row.rstrip().endswith("▄  ▂███▃")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "alpha 0.4 prunes 73.66% on average, NOT within 2% of the target of 90%" in done.stdout
    within = fast3d("search-alpha", "--maps", MAPS, "--alpha", "0.4", "--target", "80")
    assert "alpha 0.4 prunes 79.48% on average, within 2% of the target of 80%" in within.stdout
    assert "written" not in within.stderr


def test_every_dataset_meets_the_target(fast3d, tmp_path):
    options = ["search-alpha", "--maps", MAPS, "--per-dataset", "--target", "85", "--tolerance", "0.1"]
    done = fast3d(*options)
    assert max(map(len, done.stdout.splitlines())) <= 80
    found = json.loads(fast3d(*options, "--json").stdout)
    assert set(found["alpha"]) == set(DATASETS)
    assert len(set(found["alpha"].values())) == 5
    for name, one in found["datasets"].items():
        assert one["ratio"] == pytest.approx(85, abs=0.085)
        assert one["alpha"] == found["alpha"][name]
        alone = ["search-alpha", "--maps", MAPS, "--dataset", name, "--alpha", one["alpha"], "--json"]
        assert json.loads(fast3d(*alone).stdout)["ratio"] == one["ratio"]
    assert json.loads((tmp_path / "runs/alpha.json").read_text())["alpha"] == found["alpha"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # The miniature has three samples: ratios are a third of a percent apart.
        (["--target", "89.8"], "no alpha prunes 89.8% of scanqa to within 0.001% of that; "
         "nearest: 90% at alpha 0.473 and 89.6667% at alpha 0.48"),
        (["--target", "99.5"], "no alpha prunes 99.5% of scanqa to within 0.001% of that; nearest: 99% at alpha 0.0"),
    ],
)  # fmt: skip
def test_the_nearest_where_none_is_within_tolerance(fast3d, tmp_path, options, message):
    done = fast3d("search-alpha", "--dataset", "scanqa", "--per-dataset", "--tolerance", "0.001", *options, check=False)
    assert message in error(done, 1)
    assert (" and " in done.stderr.splitlines()[-1]) == (" and " in message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--alpha", "0"], "--alpha must lie in (0, 1], not 0"),
        (["--alpha", "1.1"], "--alpha must lie in (0, 1], not 1.1"),
        (["--alpha", "nan"], "--alpha must lie in (0, 1], not nan"),
        (["--target", "100"], "--target must lie in [0, 100), not 100"),
        (["--target", "-1"], "--target must lie in [0, 100), not -1"),
        (["--target", "nan"], "--target must lie in [0, 100), not nan"),
        (["--tolerance", "-1"], "--tolerance is a percentage of the target, at least 0, not -1"),
        (["--tolerance", "inf"], "--tolerance is a percentage of the target, at least 0, not inf"),
        (["--alpha", "0.2", "--per-dataset"], "give one of them"),
        (["--dataset", "scannet"], "there is no 'scannet'"),
        (["--map-key", "b_map"], "--map-key must be one of a_map, a_map_ori"),
    ],
)
def test_options_that_cannot_be_meant(fast3d, options, message):
    assert message in error(fast3d("search-alpha", *options, check=False), 2)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b"PK"), "was not loaded"),
        (lambda path: torch.save({}, path), "holds no samples"),
        (lambda path: torch.save([], path), "holds no samples"),
        (lambda path: torch.save(torch.zeros(3, 100), path), "is not an attention map file"),
        (lambda path: torch.save([1], path), "is not an attention map file"),
        (lambda path: torch.save([{"index": "a", "a_map": torch.zeros(100)}], path), "is not an attention map file"),
        (lambda path: change(path, lambda c: c.pop(57)), "lacks sample 57"),
        (lambda path: change(path, lambda c: c.update({10**12: c[0]})), "lacks sample 200"),
        (lambda path: change(path, lambda c: c[3]["a_map"].fill_(float("nan"))), "sample 3 holds NaN"),
        (lambda path: change(path, lambda c: c[3].update(a_map=torch.zeros(7))), "should hold 100 numbers"),
    ],
)
def test_maps_that_cannot_be_used(fast3d, tmp_path, maps, how, message):
    path = maps / "infer_attn_maps_val_scanqa.pt"
    how(path)
    line = error(fast3d("search-alpha", "--maps", maps, check=False), 1)
    assert message in line and str(path) in line
    assert not (tmp_path / "runs").exists()


def test_maps_of_one_value(fast3d, maps):
    torch.save([{"index": 0, "a_map": torch.full((1, 100), 3.0)}], maps / "infer_attn_maps_val_scanqa.pt")
    search = ["search-alpha", "--maps", maps, "--dataset", "scanqa", "--map-kind", "logits", "--json"]
    found = json.loads(fast3d(*search).stdout)
    assert (found["ratio"], found["datasets"]["scanqa"]["kept_p50"]) == (90, 10)


def test_eval_takes_the_alpha(fast3d, tmp_path):
    """The run with the alpha that was found is the run with that alpha given."""
    found = json.loads(fast3d("search-alpha", "--target", "80", "--json").stdout)
    done = fast3d("eval", "-m", "sap", "--no-meteor", "--name", "taken")
    path = tmp_path / "runs" / "alpha.json"
    assert f"alpha {found['alpha']}, as found by `fast3d search-alpha` ({path})" in done.stderr
    fast3d("eval", "-m", "sap", "--alpha", found["alpha"], "--no-meteor", "--name", "given")
    taken, given = (json.loads((tmp_path / "runs" / name / "result.json").read_text()) for name in ("taken", "given"))
    assert taken["settings"] == given["settings"]
    assert taken["settings"]["alpha"] == found["alpha"]
    assert taken["pruning"] == given["pruning"]
    assert taken["pruning"]["ratio"] == pytest.approx(found["ratio"])
    other = fast3d("eval", "-m", "sap", "--alpha", "0.5", *DRY)
    assert json.loads(other.stdout)["run"] == "sap-alpha0.5"  # --alpha goes before the file


def test_eval_takes_an_alpha_for_each_dataset(fast3d, tmp_path):
    found = json.loads(fast3d("search-alpha", "--per-dataset", "--json").stdout)
    done = fast3d("eval", "-m", "sap", "--no-meteor")
    assert f"scanqa {found['alpha']['scanqa']}" in done.stderr
    result = json.loads((tmp_path / "runs" / "sap-per-dataset" / "result.json").read_text())
    assert result["settings"]["alpha"] == found["alpha"]
    assert result["pruning"]["ratio"] == pytest.approx(found["ratio"])  # three samples in each dataset
    fast3d("eval", "-m", "sap", "--no-meteor")  # reads its own result back
    fast3d("search-alpha", "--per-dataset", "--target", "50")
    refused = fast3d("eval", "-m", "sap", "--no-meteor", check=False)
    assert refused.returncode == 2 and "alpha" in refused.stderr.splitlines()[-1]


def test_eval_without_an_alpha_says_how_to_get_one(fast3d):
    line = error(fast3d("eval", "-m", "sap", *DRY, check=False), 2)
    assert "sap needs --alpha" in line and "`fast3d search-alpha --target 90`" in line


def test_eval_refuses_an_alpha_of_other_maps(fast3d, files):
    config, folder = ["-c", files / "fast3d.yaml"], files / "outputs/pred_attn_maps"
    fast3d("search-alpha", *config)
    fast3d("eval", *config, "-m", "sap", *DRY)
    fast3d("eval", *config, "-m", "sap", *DRY, "--maps", shutil.copytree(folder, files / "same"))
    key = error(fast3d("eval", *config, "-m", "sap", *DRY, "--map-key", "a_map_ori", check=False), 1)
    assert "it was found on a_map, not on a_map_ori" in key
    other = error(
        fast3d("eval", *config, "-m", "sap", *DRY, "--maps", files / "outputs/infer_attn_maps", check=False), 1
    )
    assert "infer_attn_maps_val_scanrefer.pt is not the file that it was found on" in other
    path = folder / "infer_attn_maps_val_sqa3d.pt"
    change(path, lambda content: content[0]["a_map"].add_(torch.arange(100)))
    changed = error(fast3d("eval", *config, "-m", "sap", *DRY, check=False), 1)
    assert f"{path} is not the file that it was found on; run `fast3d search-alpha` again" in changed
    path.unlink()
    gone = error(fast3d("eval", *config, "-m", "sap", *DRY, "--dataset", "scanqa", check=False), 1)
    assert f"there is no {path}" in gone
    fast3d("search-alpha", *config, "--dataset", "scanqa")
    fast3d("eval", *config, "-m", "sap", *DRY, "--dataset", "scanqa")
    without = error(fast3d("eval", *config, "-m", "sap", *DRY, "--dataset", "scan2cap", check=False), 1)
    assert "was found without scan2cap" in without


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "it is this list: input should be an object"),
        ({"alpha": None}, "alpha is None: input should be"),
        ({"alpha": "0.21"}, "alpha is '0.21': input should be a valid number"),
        ({"alpha": True}, "alpha is True: input should be a valid number"),
        ({"alpha": 0}, "alpha is 0: input should be greater than 0"),
        ({"alpha": 1.1}, "alpha is 1.1: input should be less than or equal to 1"),
        ({"alpha": float("nan")}, "not valid JSON (a number is NaN)"),
        ({"alpha": {"scanqa": 2}}, "alpha.scanqa is 2: input should be less than or equal to 1"),
        ({"alpha": {"scanqa": 0.5}}, "alphas and maps are not of the same datasets"),
        ({"alpha": {}}, "alphas and maps are not of the same datasets"),
        ({"maps": None}, "maps"),
        ({"maps": {}}, "maps"),
        ({"maps": {"scanqa": 3}}, "maps"),
        ({"maps": {"../x": "3-a"}}, "there is no dataset '../x'"),
        ({"map_key": None}, "map_key is None: input should be a valid string"),
    ],
)
def test_eval_refuses_a_damaged_file(fast3d, tmp_path, change, message):
    whole = {"alpha": 0.21, "map_key": "a_map", "maps": dict.fromkeys(DATASETS, "1-a")}
    path = tmp_path / "runs" / "alpha.json"
    path.parent.mkdir()
    path.write_text(change if isinstance(change, str) else json.dumps({**whole, **change}))
    line = error(fast3d("eval", "-m", "sap", *DRY, check=False), 1)
    assert message in line and str(path) in line
