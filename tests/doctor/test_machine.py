"""Device, number type, memory, the runs folder and installed versions."""

import json
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace

import pytest
import torch

from fast3d_core.config import load_config
from fast3d_core.doctor import machine, versions
from fast3d_core.evaluation.questions import Job
from fast3d_core.evaluation.run import settings
from fast3d_core.files.files import load_json, write_json
from fast3d_core.plan import Units
from fast3d_core.pruning import Gap, Vanilla
from tests.conftest import MINIATURE
from tests.doctor.conftest import edit_json, troubles

VANILLA = {"methods": ["vanilla"]}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_absent_device(examined):
    device, memory = troubles(examined("model.device=cuda", **VANILLA))
    assert (device.area, device.status) == ("model.device", "error") and "no CUDA device" in device.what
    assert "without the device" in memory.what and "eval.batch_size" in memory.what


def test_a_number_type_that_the_device_does_not_compute_in(examined, monkeypatch):
    def not_half(*inputs):
        raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'")

    monkeypatch.setattr("torch.nn.functional.linear", not_half)
    (found,) = troubles(examined("model.dtype=float16", **VANILLA))
    assert (found.area, found.status) == ("model.device", "error")
    assert "does not compute in float16 (\"addmm_impl_cpu_\" not implemented for 'Half')" in found.what


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_number_types_of_this_cpu(examined, dtype):
    assert troubles(examined(f"model.dtype={dtype}", "model.device=cpu", **VANILLA)) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_gpu_that_torch_does_not_see(examined, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_GPUS", tmp_path)
    (found,) = troubles(examined(**VANILLA))
    assert (found.area, found.status) == ("model.device", "warning") and "does not see it" in found.what
    assert troubles(examined("model.device=cpu", **VANILLA)) == []


def test_no_memory_for_the_weights(examined, monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda device: 1_000_000)
    (found,) = troubles(examined(**VANILLA))
    assert (found.area, found.status) == ("eval.batch_size", "error") and "weights and one sample take" in found.what


@pytest.mark.parametrize(("method", "status"), [("vanilla", "error"), ("sap", "warning")])
def test_no_memory_for_the_batch(examined, monkeypatch, method, status):
    """The batch that is advised does fit; sap drops tokens before the first layer, so it may fit as it is."""
    monkeypatch.setattr(machine, "available_memory", lambda device: 6_000_000)
    (found,) = troubles(examined(methods=[method]))
    assert (found.area, found.status) == ("eval.batch_size", status) and "a batch of 3 takes up to" in found.what
    size = int(found.do.removeprefix("--batch ").removesuffix(", or --batch auto"))
    assert size in (1, 2)
    for advised in (size, "auto"):
        assert troubles(examined(f"eval.batch_size={advised}", methods=[method])) == []


def test_little_memory_to_load_through(monkeypatch):
    """Weights on a GPU pass through the computer's memory."""
    case = SimpleNamespace(
        config=load_config(MINIATURE),
        device=torch.device("cuda"),
        datasets=["scanqa"],
        methods=["vanilla"],
        samples=lambda dataset: [None],
        longest_text=lambda: 100,
        units=Units(100, 3),
    )
    from fast3d_core.llm.weights import read_shape

    case.shape = read_shape(case.config.model.llm)
    monkeypatch.setattr(machine, "available_memory", lambda device: 10**9)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1000))
    fits, passes = machine.memory(case)
    assert fits.status == "ok"
    assert passes.status == "warning" and "pass through the computer's memory" in passes.what


@pytest.mark.skipif(sys.platform != "linux", reason="/proc takes no files on Linux")
def test_runs_that_cannot_be_written(examined):
    (found,) = troubles(examined("runs=/proc/self/runs", **VANILLA))
    assert (found.area, found.status) == ("runs", "error") and "nothing can be written to /proc/self" in found.what


def test_runs_under_a_file(examined, files):
    (found,) = troubles(examined(f"runs={files / 'fast3d.yaml' / 'runs'}", **VANILLA))
    assert (found.area, found.status) == ("runs", "error") and "Not a directory" in found.what


def test_a_full_disk(examined, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=50_000_000))
    (found,) = troubles(examined(**VANILLA))
    assert (found.area, found.status) == ("runs", "error") and "of the disk are free" in found.what


@pytest.fixture
def runs(files):
    """Runs of vanilla and gap, made with the settings and files as they are."""
    config = load_config(files / "fast3d.yaml", [f"runs={files / 'runs'}"])
    for job in (Job("vanilla", Vanilla()), Job("gap-K2-keep15", Gap(2, 15), config.maps.predicted)):
        folder = config.runs / job.name
        write_json(
            folder / "settings.json",
            settings(config, job, ["scanqa", "sqa3d"], 2, torch.device("cpu"), config.eval.batch_size),
        )
        (folder / "part-000-00.jsonl").write_text("{}\n")
    return config.runs


def test_earlier_runs(examined, runs):
    found = examined()
    assert troubles(found) == []
    assert "2 earlier runs have the settings" in [one.what for one in found if one.area == "runs"][1]


def test_earlier_runs_that_cannot_be_read(examined, runs):
    """Their settings are the same, and yet `fast3d eval` refuses to continue them."""
    line = {"batch": 0, "seconds": 1.0, "gap_seconds": 0.0}
    old = {"dataset": "scanqa", "index": 0, "pred": "y", "tokens": 400, "steps": 3, "layer": 2, "kept": None}
    (runs / "vanilla" / "part-000-00.jsonl").write_text(json.dumps({**line, "samples": [old]}) + "\n")
    damaged = {**line, "version": 2, "samples": [{**old, "index": -1}]}
    (runs / "gap-K2-keep15" / "part-000-00.jsonl").write_text(json.dumps(damaged) + "\n")
    found = examined()
    gap, vanilla = troubles(found)
    assert (vanilla.status, vanilla.what) == ("error", "vanilla was made by another version of fast3d")
    assert gap.status == "warning" and gap.what.startswith("gap-K2-keep15 cannot be read: the journal ")
    assert not any("earlier runs have" in one.what for one in found)


@pytest.mark.parametrize("broken", [None, "[]", '{"method": "vanilla"}', '{"method": "vanilla", "datasets": [3]}', "{"])
def test_earlier_runs_with_other_settings(examined, runs, files, broken):
    edit_json(files / "annotations" / "sqa3d_val.json", lambda content: content.append(content[0]))
    if broken:  # what is no run of ours is no trouble, and hides none
        (runs / "another").mkdir()
        (runs / "another" / "settings.json").write_text(broken)
    gap, vanilla = troubles([one for one in examined() if one.area == "runs"])
    assert gap.status == "warning" and gap.what.startswith("gap-K2-keep15 was made with other")
    assert vanilla.status == "error" and "files.sqa3d_val.json" in vanilla.what  # `eval -m vanilla` would refuse
    assert [one.status for one in examined(methods=["gap"]) if one.area == "runs"] == ["ok", "warning"]


def test_earlier_runs_of_files_that_are_gone(examined, runs, files):
    (files / "llm").rename(files / "llama")
    assert [one.status for one in examined() if one.area == "runs"] == ["ok"]


def test_a_run_without_answers_is_begun_anew(examined, runs):
    (runs / "vanilla" / "part-000-00.jsonl").write_text("")
    write_json(runs / "vanilla" / "settings.json", {**load_json(runs / "vanilla" / "settings.json", ""), "engine": "x"})
    (found,) = troubles(examined())
    assert found.status == "warning" and "engine" in found.what


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("transformers", "4.31.0", "transformers is 4.31.0, fast3d needs"),
        ("torch", "2.2.0+cu121", r"torch is 2.2.0\+cu121, fast3d needs"),
        ("sentencepiece", None, "sentencepiece is not installed"),
    ],
)
def test_versions(monkeypatch, name, found, message):
    def other(asked):
        if asked == name and found is None:
            raise PackageNotFoundError(asked)
        return found if asked == name else version(asked)

    monkeypatch.setattr(versions, "version", other)
    (finding,) = versions.installed()
    assert finding.status == "error" and finding.do.startswith(f'pip install "{name}')
    assert re.match(message, finding.what)


def test_python(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.8.1")
    (finding,) = versions.installed()
    assert finding.status == "error" and "Python is 3.8.1" in finding.what


def test_not_installed(monkeypatch):
    def nothing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(versions, "requires", nothing)
    (finding,) = versions.installed()
    assert finding.status == "warning" and "not installed as a package" in finding.what
