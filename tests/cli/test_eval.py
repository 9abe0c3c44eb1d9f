"""`fast3d eval` as a user runs it: resume, several processes, settings that changed, and everything that goes wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch

from fast3d_core.config import DATASETS, EMBEDDED
from tests.cli.conftest import ROOT
from tests.conftest import RECORDED

MAPS = "infer_attn_maps_val_scanqa.pt"
LIMITED = ["--dataset", "scanrefer", "--limit", "1", "--no-meteor"]


def predictions(folder):
    return {dataset: json.loads((folder / "predictions" / f"{dataset}.json").read_text()) for dataset in DATASETS}


def recorded(mode):
    return json.loads((ROOT / "tests/data/chat_scene_preds" / f"{mode}.json").read_text())["preds"]


def comparable(result):
    """A result without what may differ between two runs of the same thing."""
    return {key: value for key, value in result.items() if key not in ("name", "timing", "environment")}


def test_answers_are_the_recorded_ones(fast3d, tmp_path):
    """Several methods and budgets on one loaded model; prediction files as published, records and order."""
    fast3d("eval", "-m", "vanilla", "-m", "sap", "--alpha", "0.21", "--alpha", "0.5")
    budget = ["--layer", "2", "--keep", "15", "--no-meteor"]
    fast3d("eval", "-m", "gap", *budget, "--maps", RECORDED / "pred_attn_maps_syn", "--name", "syn")
    fast3d("eval", "-m", "fastv", *budget, "--engine", "reference")
    runs = {
        "vanilla": "vanilla",
        "sap-alpha0.21": "sap_gap_K0_alpha0.21",
        "sap-alpha0.5": "sap_gap_K0_alpha0.5",
        "syn": "map_syn_K2_rank15",
        "fastv-K2-keep15-reference": "fastv_K2_rank15",
    }
    assert {path.name for path in (tmp_path / "runs").iterdir()} == set(runs)
    for run, mode in runs.items():
        assert predictions(tmp_path / "runs" / run) == recorded(mode)
    result = json.loads((tmp_path / "runs" / "syn" / "result.json").read_text())
    assert result["pruning"]["ratio"] == pytest.approx(100 * (1 - 2 / 4) * (1 - 15 / 300))
    assert result["pruning"]["kept_objects"] == {"mean": 5, "p5": 5, "p50": 5, "p95": 5}
    # scene0015_00 holds 87 objects, scene0025_00 holds 99: there are fewer tokens to prune, so the share is another.
    assert result["pruning"]["ratio_present"] != pytest.approx(result["pruning"]["ratio"])
    assert result["samples"] == dict.fromkeys(DATASETS, 3)
    assert result["settings"]["keep"] == 15
    assert result["environment"]["versions"]["torch"] == torch.__version__


def test_json_is_all_that_stdout_gets(fast3d):
    done = fast3d("eval", "-m", "vanilla", *LIMITED, "--json")
    result = json.loads(done.stdout)
    assert result["samples"] == {"scanrefer": 1}
    assert "no config given: using the embedded demo" in done.stderr


def test_a_killed_run_continues(fast3d, tmp_path, files):
    """Killed after a few batches, again and again, a run ends with the result of an uninterrupted one."""
    arguments = ["eval", "-m", "gap", "--layer", "1", "--keep", "30", "--set", "eval.batch_size=1", "--no-meteor"]
    fast3d(*arguments, "--name", "whole")
    command = [sys.executable, "-m", "fast3d_cli", *arguments, "--name", "killed"]
    killed = tmp_path / "runs" / "killed"

    def lines():
        return sum(len(path.read_text().splitlines()) for path in killed.glob("part-*.jsonl"))

    for wanted in (2, 5):
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and lines() < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (killed / "result.json").exists()
    assert 2 <= lines() < 15
    part = sorted(killed.glob("part-*.jsonl"))[0]
    part.write_text(part.read_text()[:-5])  # and the last line torn
    done = fast3d(*arguments, "--name", "killed")
    assert "done before" in done.stderr
    results = [json.loads((tmp_path / "runs" / name / "result.json").read_text()) for name in ("whole", "killed")]
    assert comparable(results[0]) == comparable(results[1])
    assert predictions(killed) == predictions(tmp_path / "runs" / "whole")
    # A third time there is nothing left to do, not even a model to load.
    again = fast3d(*arguments, "--name", "killed")
    assert "loading the model" not in again.stderr


def test_two_processes_give_the_result_of_one(fast3d, tmp_path):
    arguments = ["eval", "-m", "sap", "--alpha", "0.5", "-m", "vanilla", "--set", "eval.batch_size=2", "--no-meteor"]
    fast3d(*arguments, "--name", "one")
    done = subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "fast3d_cli",
         *arguments, "--name", "two"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for method in ("sap-alpha0.5", "vanilla"):
        one, two = (tmp_path / "runs" / f"{name}-{method}" for name in ("one", "two"))
        assert len(list(two.glob("part-000-*.jsonl"))) == 2  # both answered
        assert predictions(one) == predictions(two)
        results = [json.loads((folder / "result.json").read_text()) for folder in (one, two)]
        assert comparable(results[0]) == comparable(results[1])
        assert results[1]["environment"]["processes"] == 2


def test_bfloat16_resumes_to_the_same_answers(fast3d, tmp_path):
    """bf16 depends on the batch, and a resumed run, or one on more processes, computes the very same batches."""
    arguments = ["eval", "-m", "vanilla", "--set", "model.dtype=bfloat16", "--set", "eval.batch_size=2", "--no-meteor"]
    fast3d(*arguments)
    run = tmp_path / "runs" / "vanilla"
    whole = predictions(run)
    (run / "result.json").unlink()
    part = run / "part-000-00.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[1::2]))  # as if another process had had the other batches
    fast3d(*arguments)
    assert predictions(run) == whole


def test_changed_settings_are_refused(fast3d, tmp_path):
    fast3d("eval", "-m", "gap", "--layer", "1", "--keep", "30", *LIMITED, "--name", "x")
    done = fast3d("eval", "-m", "gap", "--layer", "1", "--keep", "15", *LIMITED, "--name", "x", check=False)
    assert done.returncode == 2
    assert "keep: 30 -> 15" in done.stderr
    fast3d("eval", "-m", "gap", "--layer", "1", "--keep", "15", *LIMITED, "--name", "x", "--restart")
    assert json.loads((tmp_path / "runs" / "x" / "result.json").read_text())["settings"]["keep"] == 15


SPOILT = [
    {"index": 1}, {"index": None}, {"dataset": "../x"}, {"dataset": None}, {"pred": 3}, {"tokens": "9"},
    {"tokens": 0}, {"steps": -1}, {"layer": 1.5}, {"kept": [300]}, {"kept": [-1]}, {"kept": "all"},
    {"kept": [0] * 301}, {"gap_flops": "1"},
]  # fmt: skip


def test_a_journal_that_answers_something_else(fast3d, tmp_path):
    """It is told, and nothing is made of it; a line that is no line of a journal is answered again."""
    arguments = ["eval", "-m", "vanilla", *LIMITED, "--set", "generation.beams=1"]
    fast3d(*arguments)
    run = tmp_path / "runs" / "vanilla"
    part, kept = run / "part-000-00.jsonl", {path: path.read_bytes() for path in run.rglob("*.json")}
    line = json.loads(part.read_text())
    for change in SPOILT:
        part.write_text(json.dumps(line | {"samples": [line["samples"][0] | change]}) + "\n")
        done = fast3d(*arguments, check=False)
        assert done.returncode == 1 and "is damaged: batch 0 of its journal does not answer" in done.stderr, change
        assert {path: path.read_bytes() for path in run.rglob("*.json")} == kept
    part.write_text(json.dumps(line | {"samples": 3}) + "\n")
    fast3d(*arguments)
    path = run / "predictions" / "scanrefer.json"
    assert path.read_bytes() == kept[path]


def test_dry_run_writes_nothing_and_loads_no_weights(fast3d, tmp_path, files):
    (files / "llm" / "model.safetensors").unlink()
    (files / "ckpt_01_3446.pth").unlink()
    config = files / "fast3d.yaml"
    done = fast3d(
        "eval", "-c", config, "-m", "sap", "--alpha", "0.21", "-m", "gap", "--preset", "35", "--dry-run", "--json"
    )
    sap, gap = json.loads(done.stdout)
    assert sap["samples"] == dict.fromkeys(DATASETS, 3)
    assert (gap["layer"], gap["kept_tokens"]["mean"], gap["ratio"]) == (2, 90, pytest.approx(35))
    assert sap["kept_tokens"]["mean"] == pytest.approx(sum([12, 9, 15, 12, 9, 15, 9, 9, 15, 9, 9, 9, 9, 9, 15]) / 15)
    assert 0 < sap["seconds"] < gap["seconds"]
    assert not list(files.glob("runs"))


def test_verbose_lists_what_is_not_used(fast3d):
    assert "pos_proj.0.weight" in fast3d("eval", "-m", "vanilla", *LIMITED, "--verbose").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-m", "sap", "--alpha", "1.5"], "alpha must lie in (0, 1]"),
        (["-m", "gap", "--layer", "1", "--keep", "301"], "--keep must lie in 1..300"),
        (["-m", "gap", "--layer", "4", "--keep", "15"], "--layer must lie in 0..3"),
        (["-m", "fastv", "--layer", "0", "--keep", "15"], "K must be at least 1"),
        (["-m", "gap", "--preset", "90"], "largest reachable ratio is 74.25%"),
        (["-m", "vanilla", "--dataset", "scanqq"], "there is no 'scanqq'"),
        (["-m", "vanilla", "--maps", "x"], "--maps means nothing to vanilla"),
        (["-m", "vanilla", "--engine", "faster"], "eval.engine"),
        (["-m", "sap", "--alpha", "0.5", "--map-key", "b_map"], "--map-key must be one of a_map, a_map_ori"),
        (["-m", "vanilla", "--name", "../x"], "not a path"),
        (["-m", "vanilla", "--set", "model.checkpont=x"], 'did you mean "model.checkpoint"'),
        (["-m", "vanilla", "--set", "model.device=cuda:99"], "CUDA"),
        (["-m", "vanila"], "did you mean vanilla"),
    ],
)  # fmt: skip
def test_usage_errors(fast3d, tmp_path, arguments, message):
    done = fast3d("eval", *arguments, check=False)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and message in lines[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def _broken(name):
    """Ways to break the files that `eval` reads: name -> (what to do, what the error must say)."""

    def cut(path, size):
        path.write_bytes(path.read_bytes()[:size])

    def maps(folder, change):
        path = folder / "outputs/pred_attn_maps" / MAPS
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)

    def unknown_scene(folder):
        path = folder / "annotations/scanqa_val.json"
        path.write_text(path.read_text().replace("scene0015_00", "scene0999_00"))

    def narrow(folder):
        path = folder / "annotations/scannet_mask3d_videofeats.pt"
        torch.save({key: value[:32] for key, value in torch.load(path, weights_only=True).items()}, path)

    return {
        "map file missing": (lambda f: (f / "outputs/pred_attn_maps" / MAPS).unlink(), "does not exist"),
        "maps of another dataset": (lambda f: maps(f, lambda c: c.update({7: c[0]})), "for another dataset"),
        "too few maps": (lambda f: maps(f, lambda c: c.pop(1)), "lacks 1 of 3 samples"),
        "NaN in a map": (lambda f: maps(f, lambda c: c[0]["a_map"].fill_(float("nan"))), "NaN"),
        "short map": (lambda f: maps(f, lambda c: c[0].update(a_map=torch.zeros(99))), "should hold 100 numbers"),
        "unknown scene": (unknown_scene, "record 1 names scene scene0999_00"),
        "features of the wrong width": (narrow, "64 (3D) and 32 (2D) wide"),
        "truncated checkpoint": (lambda f: cut(f / "ckpt_01_3446.pth", 9000), "ckpt_01_3446.pth"),
        "no checkpoint": (lambda f: (f / "ckpt_01_3446.pth").unlink(), "model.checkpoint in"),
        "no LLM": (lambda f: (f / "llm").rename(f / "vicuna"), "model.llm in"),
        "truncated LLM": (lambda f: cut(f / "llm/model.safetensors", 5000), "cannot be read"),
        "truncated annotations": (lambda f: cut(f / "annotations/scanqa_val.json", 100), "is not valid JSON"),
        "runs is a file": (lambda f: (f / "runs").write_text(""), "cannot be written"),
    }[name]  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["map file missing", "maps of another dataset", "too few maps", "NaN in a map", "short map", "unknown scene",
     "features of the wrong width", "truncated checkpoint", "no checkpoint", "no LLM", "truncated LLM",
     "truncated annotations", "runs is a file"],
)  # fmt: skip
def test_data_errors(fast3d, files, name):
    harm, message = _broken(name)
    harm(files)
    done = fast3d("eval", "-c", files / "fast3d.yaml", "-m", "sap", "--alpha", "0.21", check=False)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and message in lines[0], done.stderr
    assert "Traceback" not in done.stderr
    assert not list(files.glob("runs/*/result.json"))


def test_full_disk_loses_nothing(fast3d, files):
    """A file size limit stands in for a full disk: the journal fits two or three answers and no more."""
    arguments = ["eval", "-c", files / "fast3d.yaml", "-m", "vanilla", "--set", "eval.batch_size=1", "--no-meteor"]
    fast3d(*arguments)
    run = files / "runs" / "vanilla"
    whole = predictions(run)
    (run / "result.json").unlink()
    part = run / "part-000-00.jsonl"
    part.write_text("".join(part.read_text().splitlines(keepends=True)[:2]))
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400)); sys.argv[0] = 'fast3d';"
        "from fast3d_cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and "what is there is kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (run / "result.json").exists()
    assert "done before" in fast3d(*arguments).stderr
    assert predictions(run) == whole


def test_out_of_memory_says_what_to_try(fast3d):
    """A batch that cannot be allocated: far more beams than any memory holds."""
    done = fast3d(
        "eval", "-m", "vanilla", "--dataset", "scanqa", "--set", "generation.beams=300",
        "--set", "generation.max_new_tokens=100000000", check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "out of memory at batch size 3" in done.stderr
    assert "--set eval.batch_size=1" in done.stderr


def test_help_is_quick_and_does_not_import_torch(fast3d):
    for command in ([], ["eval"], ["score"], ["report"]):
        code = f"import sys; sys.argv = ['fast3d', *{command!r}, '--help']; from fast3d_cli.app import app\n"
        code += "try: app()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules "
        code += "\nassert 'transformers' not in sys.modules"
        times = []
        for _ in range(2):  # processor time, since other tests keep the machine busy
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            assert done.returncode == 0, done.stderr
            assert "Usage" in done.stdout
        assert min(times) < 1


def test_embedded_config_exists():
    assert EMBEDDED.is_file()
