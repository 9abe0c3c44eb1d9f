"""`fast3d eval` as a user runs it: resume, several processes, settings that changed, and everything that goes wrong."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from fast3d_core.config import DATASETS, load_config
from fast3d_core.demo import demo_folder
from fast3d_core.evaluation import batch_size, overlap
from fast3d_core.evaluation.needs import Needs
from fast3d_core.evaluation.overlap import Prefetch
from fast3d_core.files.cache import CACHE
from fast3d_core.llm.engine.fast import FastEngine
from fast3d_core.models.chat_scene.model import ChatScene
from tests.cli.conftest import ROOT
from tests.conftest import MINIATURE, RECORDED

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


ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m"]


def alone(tmp_path, *arguments, start=(sys.executable, "-m"), **more):
    """The command in processes of its own, started in another way where `start` says so."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*start, "fast3d_cli", *map(str, arguments)],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["--processes", "accelerate launch"])
def test_two_processes_give_the_result_of_one(fast3d, tmp_path, way):
    arguments = ["eval", "-m", "sap", "--alpha", "0.5", "-m", "vanilla", "--batch", "2", "--no-meteor", "--json"]
    fast3d(*arguments, "--name", "one")
    more = {"--processes": ["--processes", "2"]}.get(way, [])
    start = {"accelerate launch": ACCELERATE}.get(way, [sys.executable, "-m"])
    process = alone(tmp_path, *arguments, "--name", "two", *more, start=start)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert [result["name"] for result in json.loads(stdout)] == ["two-sap-alpha0.5", "two-vanilla"]
    for method in ("sap-alpha0.5", "vanilla"):
        one, two = (tmp_path / "runs" / f"{name}-{method}" for name in ("one", "two"))
        assert len(list(two.glob("part-000-*.jsonl"))) == 2  # both answered
        assert predictions(one) == predictions(two)
        results = [json.loads((folder / "result.json").read_text()) for folder in (one, two)]
        assert comparable(results[0]) == comparable(results[1])
        assert results[1]["environment"]["processes"] == 2
        assert f"two-{method} scanqa: 3 samples" in stderr
    # And the other way round: one process goes on with what two began.
    result = two / "result.json"
    result.unlink()
    (two / "part-000-01.jsonl").unlink()
    fast3d(*arguments, "--name", "two")
    assert (two / "part-001-00.jsonl").exists()
    assert comparable(json.loads(result.read_text())) == comparable(results[0])


def test_a_slow_process_answers_fewer_batches(fast3d, tmp_path):
    """And the answers are the same."""
    arguments = ["eval", "-m", "vanilla", "--batch", "1", "--no-meteor"]
    fast3d(*arguments, "--name", "one")
    (tmp_path / "slow.py").write_text(
        "import os, sys, time\n"
        "from fast3d_core.models.chat_scene.model import ChatScene\n"
        "quick = ChatScene.generations\n"
        "def slow(*arguments, **more):\n"
        "    time.sleep(0.5 * int(os.environ['RANK']))\n"
        "    return quick(*arguments, **more)\n"
        "ChatScene.generations = slow\n"
        "from fast3d_cli.app import main\n"
        "main()\n"
    )
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "slow.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, *arguments, "--name", "two"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    quick, slow = (
        len((tmp_path / "runs" / "two" / f"part-000-{process:02}.jsonl").read_text().splitlines()) for process in (0, 1)
    )
    assert quick + slow == 15 and 1 <= slow < quick / 2
    assert predictions(tmp_path / "runs" / "two") == predictions(tmp_path / "runs" / "one")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "model.checkpoint=nothing.pth"], 1, "nothing.pth does not exist"),  # of both
        (["--name", "taken"], 2, "holds a run with other settings"),  # of one, while the other waits for it
    ],
)
def test_an_error_of_several_processes_is_one_line(fast3d, tmp_path, arguments, code, message):
    if "taken" in arguments:
        fast3d("eval", "-m", "sap", "--alpha", "0.5", *LIMITED, "--name", "taken")
    process = alone(tmp_path, "eval", "-m", "vanilla", *LIMITED, *arguments, "--processes", "2")
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (code, ""), stderr
    lines = [line for line in stderr.splitlines() if "error" in line.lower()]
    assert len(lines) == 1 and message in lines[0], stderr
    assert "Traceback" not in stderr


def _children(process):
    """The processes that this one started."""
    listed = subprocess.run(["ps", "-eo", "pid,ppid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()[1:]]
    return [int(pid) for pid, parent, state in rows if int(parent) == process.pid and state[0] != "Z"]


def _is_there(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("sent", "to", "code", "said"),
    [
        (signal.SIGINT, "all", 130, "interrupted; the same command continues"),
        (signal.SIGTERM, "launcher", 143, ""),
        (signal.SIGKILL, "one of two", 137, "was ended by signal 9"),
    ],
    ids=["Ctrl-C", "SIGTERM", "a killed child"],
)
def test_several_processes_end_together(fast3d, tmp_path, sent, to, code, said):
    """Nothing is left running, nothing is lost, and the same command continues."""
    arguments = ["eval", "-m", "vanilla", "--batch", "1", "--no-meteor", "--set", "generation.beams=20"]
    process = alone(tmp_path, *arguments, "--processes", "2", start_new_session=True)
    run = tmp_path / "runs" / "vanilla"
    while process.poll() is None and len(list(run.glob("part-*.jsonl"))) < 2:
        time.sleep(0.01)
    children = _children(process)
    assert len(children) == 2
    if to == "all":
        os.killpg(process.pid, sent)  # as a terminal does
    else:
        os.kill(process.pid if to == "launcher" else children[1], sent)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert said in stderr and "Traceback" not in stderr
    assert not any(map(_is_there, children))
    answered = sum(len(path.read_text().splitlines()) for path in run.glob("part-*.jsonl"))
    assert 2 <= answered < 15
    fast3d(*arguments)
    assert sum(len(records) for records in predictions(run).values()) == 15


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


def test_auto_batches(fast3d, tmp_path, monkeypatch):
    """Said once, recorded as a number, kept by a resumed run, whatever the memory holds then."""

    def memory(more):
        monkeypatch.setattr(batch_size, "available_memory", lambda device: (weights + more) / 0.85)

    weights = Needs.of_config(load_config(MINIATURE)).weights
    memory(6e6)
    done = fast3d("eval", "-m", "vanilla", "--batch", "auto", "--no-meteor")
    run = tmp_path / "runs" / "vanilla"
    size = json.loads((run / "settings.json").read_text())["batch_size"]
    assert size == 2
    assert done.stderr.count(f"vanilla: {size} samples a batch (eval.batch_size is auto)") == 1
    whole = predictions(run)
    (run / "result.json").unlink()
    part = run / "part-000-00.jsonl"
    part.write_text("".join(part.read_text().splitlines(keepends=True)[1:]))
    memory(1e12)
    assert "done before" in fast3d("eval", "-m", "vanilla", "--batch", "auto", "--no-meteor").stderr
    assert predictions(run) == whole
    assert json.loads((run / "result.json").read_text())["settings"]["batch_size"] == size
    fast3d("eval", "-m", "vanilla", "--batch", "auto", "--no-meteor", "--restart")
    assert json.loads((run / "result.json").read_text())["settings"]["batch_size"] == 16
    dry = fast3d("eval", "-m", "fastv", "--preset", "35", "--batch", "auto", "--dry-run", "--json")
    assert json.loads(dry.stdout)["batch_size"] == 16


def test_an_error_in_the_next_batch_loses_nothing(fast3d, tmp_path, monkeypatch):
    """As on a GPU, where a thread prepares one batch ahead; with live maps, which it predicts."""
    monkeypatch.setattr(overlap, "Prefetch", lambda items, make, threaded: Prefetch(items, make, threaded=True))
    arguments = ["eval", "-m", "sap", "--alpha", "0.5", "--gap", "live", "--batch", "1", "--no-meteor"]
    fast3d(*arguments, "--name", "whole")
    prompts, calls, failed = ChatScene.prompts, [], threading.Event()

    def third_fails(*given):
        calls.append(threading.current_thread())
        if len(calls) == 3:
            failed.set()
            raise RuntimeError("CUDA out of memory")
        return prompts(*given)

    generations = ChatScene.generations

    def slowly(*given):
        *_, meanwhile = given
        meanwhile()
        if len(calls) > 1:
            assert failed.wait(20)  # the third batch fails while the second is being answered
        return generations(*given)

    with monkeypatch.context() as patch:
        patch.setattr(ChatScene, "prompts", third_fails)
        patch.setattr(ChatScene, "generations", slowly)
        done = fast3d(*arguments, "--name", "broken", check=False)
    assert done.returncode == 1 and "out of memory at batch size 1" in done.stderr
    assert threading.main_thread() not in calls
    assert len((tmp_path / "runs" / "broken" / "part-000-00.jsonl").read_text().splitlines()) == 2
    fast3d(*arguments, "--name", "broken")
    assert predictions(tmp_path / "runs" / "broken") == predictions(tmp_path / "runs" / "whole")
    fast3d(*[word for word in arguments if word not in ("--gap", "live")], "--name", "files")
    assert predictions(tmp_path / "runs" / "files") == predictions(tmp_path / "runs" / "whole")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_stream_of_its_own_changes_no_answer(fast3d, tmp_path, monkeypatch, device="cuda"):
    """Live maps, plans and prompts of the next batch, made while this one is decoded, or one after the other."""
    methods = ["-m", "sap", "--alpha", "0.5", "-m", "gap", "--layer", "2", "--keep", "15", "--reuse-scene"]
    arguments = ["eval", *methods, "--gap", "live", "--batch", "2", "--no-meteor", "--set", f"model.device={device}"]
    for name in ("ahead", "again"):
        fast3d(*arguments, "--name", name)
    monkeypatch.setattr(
        overlap, "_StreamPrefetch", lambda numbers, prepare, device: Prefetch(numbers, prepare, threaded=False)
    )
    fast3d(*arguments, "--name", "inline")
    for method in ("sap-alpha0.5-reuse", "gap-K2-keep15-reuse"):
        ahead, again, inline = (tmp_path / "runs" / f"{name}-{method}" for name in ("ahead", "again", "inline"))
        assert predictions(ahead) == predictions(again) == predictions(inline)


def test_reuse_of_scenes(fast3d, files):
    """Where nothing is pruned the answers are the published ones; three questions about one scene cost less."""
    path = files / "annotations" / "scanqa_val.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps([record | {"scene_id": records[0]["scene_id"]} for record in records]))
    arguments = ["eval", "-c", files / "fast3d.yaml", "--dataset", "scanqa", "--no-meteor"]
    fast3d(*arguments, "-m", "vanilla")
    fast3d(*arguments, "-m", "vanilla", "--reuse-scene")
    fast3d(*arguments, "-m", "vanilla", "--set", "eval.reuse_scene=true", "--name", "x")
    fast3d(*arguments, "-m", "vanilla", "--reuse-scene", "--batch", "1", "--name", "alone")
    plain, reused, other, alone_ = (
        json.loads((files / "runs" / name / "result.json").read_text())
        for name in ("vanilla", "vanilla-reuse", "x", "alone")
    )
    assert [result["settings"]["reuse_scene"] for result in (plain, reused, other)] == [False, True, True]
    answers = [
        json.loads((files / "runs" / name / "predictions" / "scanqa.json").read_text())
        for name in ("vanilla", "vanilla-reuse")
    ]
    assert answers[0] == answers[1]
    assert reused["cost"]["prefill_flops"] < 0.5 * plain["cost"]["prefill_flops"]
    assert alone_["cost"]["prefill_flops"] == pytest.approx(plain["cost"]["prefill_flops"])
    done = fast3d(*arguments, "-m", "vanilla", "--name", "x", check=False)
    assert done.returncode == 2 and "reuse_scene: true -> false" in done.stderr
    dry = fast3d(*arguments, "-m", "vanilla", "--reuse-scene", "--dry-run")
    assert "what --reuse-scene saves is not taken off" in dry.stderr


def test_changed_settings_are_refused(fast3d, tmp_path):
    fast3d("eval", "-m", "gap", "--layer", "1", "--keep", "30", *LIMITED, "--name", "x")
    done = fast3d("eval", "-m", "gap", "--layer", "1", "--keep", "15", *LIMITED, "--name", "x", check=False)
    assert done.returncode == 2
    assert "keep: 30 -> 15" in done.stderr
    fast3d("eval", "-m", "gap", "--layer", "1", "--keep", "15", *LIMITED, "--name", "x", "--restart")
    assert json.loads((tmp_path / "runs" / "x" / "result.json").read_text())["settings"]["keep"] == 15


SPOILT = [
    {"index": 1}, {"index": None}, {"dataset": "../x"}, {"dataset": None}, {"pred": 3}, {"tokens": "9"},
    {"tokens": 0}, {"steps": -1}, {"stages": [[1.5, None]]}, {"stages": [[0, [300]]]}, {"stages": [[0, [-1]]]},
    {"stages": "all"}, {"stages": [[0, "all"]]}, {"stages": [[0, [0] * 301]]}, {"stages": [[0]]}, {"gap_flops": "1"},
    {"stages": [[0, [3, 1]]]}, {"stages": [[4, None]]}, {"stages": [[2, None], [1, [0]]]},
    {"cached": -1}, {"cached": "x"}, {"layer": 0},
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
        told = " ".join(done.stderr.split())
        assert done.returncode == 1 and "is damaged: " in told and "--restart, or under another --name" in told, change
        assert {path: path.read_bytes() for path in run.rglob("*.json")} == kept
    for name in line["samples"][0].keys() - {"cached", "gap_flops", "kept"}:
        without = {key: value for key, value in line["samples"][0].items() if key != name}
        part.write_text(json.dumps(line | {"samples": [without]}) + "\n")
        assert fast3d(*arguments, check=False).returncode == 1, name
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
        (["-m", "vanilla", "--batch", "0"], "eval.batch_size must be at least 1, not 0"),
        (["-m", "vanilla", "--batch", "much"], 'eval.batch_size must be an integer or auto, not "much"'),
        (["-m", "vanilla", "--reuse-scene", "--engine", "reference"], "--reuse-scene needs the fast engine"),
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
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)); sys.argv[0] = 'fast3d';"
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


def test_out_of_memory_says_what_to_try(fast3d, monkeypatch):
    """A batch for which more is asked than any memory holds."""
    monkeypatch.setattr(FastEngine, "prefill", lambda *_: torch.empty(1 << 55))
    done = fast3d("eval", "-m", "vanilla", "--dataset", "scanqa", check=False)
    assert done.returncode == 1
    assert "out of memory at batch size 3" in done.stderr
    assert "Try --batch 1 --restart" in done.stderr


def test_help_is_quick_and_does_not_import_torch(fast3d):
    for command in ([], ["eval"], ["ask"], ["bench"], ["score"], ["report"]):
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


def test_the_embedded_demo_s_stand_in_exists():
    assert demo_folder() == CACHE / "demo" and (demo_folder() / "fast3d.yaml").is_file()
