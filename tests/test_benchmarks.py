"""The benchmark scripts run, in miniature."""

import json
import subprocess
import sys

from tests.cli.conftest import ROOT
from tests.conftest import MINIATURE


def test_full_size_in_miniature(tmp_path):
    def run(*arguments):
        done = subprocess.run(
            [sys.executable, ROOT / "benchmarks" / "full_size.py", *map(str, arguments)],
            env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    folder = tmp_path / "files"
    run("files", folder, "--shape", "tiny", "--scenes", 1)
    (extraction,) = json.loads(run("extraction", folder, "--samples", 8, "--baseline-samples", 2))["extraction"]
    assert set(extraction["samples_per_second"]) == {
        "ours", "stock, forward pass only", "stock, generating as published"
    }  # fmt: skip
    small = ["--batch-size", 2, "--steps", 1, "--precision", "fp32"]
    (training,) = json.loads(run("training", folder, *small))["training"]
    assert training["samples_per_second"] > 0


def test_features_in_miniature(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "features.py", tmp_path, "--scenes", "2", "--width", "8"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    for form in ("released", "packed"):
        assert figures[form]["open"]["seconds"] > 0 and figures[form]["all_scenes"]["seconds"] > 0


def test_asking_in_miniature():
    script = ROOT / "benchmarks" / "asking.py"
    command = [sys.executable, script, "--questions", "1", "--alpha", "0.1", "--config", MINIATURE]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = [line.split(",")[0] for line in done.stdout.splitlines()]
    assert told == ["sap-alpha0.1: 5 answers", "vanilla: 5 answers"]
