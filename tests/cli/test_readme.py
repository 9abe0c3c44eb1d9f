"""The README, word by word: its commands run, its schema is the schema. docs/quick-start.md shares its demo."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from fast3d_core.config import default_yaml
from fast3d_core.demo import WEIGHTS
from fast3d_core.demo.release import GAP, write_demo
from fast3d_core.pruning import METHODS
from tests.cli.conftest import ROOT
from tests.cli.documents import DOCS, blocks, fast3d_commands, lines
from tests.demo.test_release import TINY, weights  # noqa: F401 (a fixture)
from tests.pruning.packages import packages  # noqa: F401 (a fixture)

# ruff: noqa: F811

README = (ROOT / "README.md").read_text()


COMMANDS = lines(README, "bash")


def test_schema():
    assert blocks(README, "yaml") == [default_yaml()]


BEFORE, AFTER = README.split("## Install")


@pytest.fixture(scope="module")
def demo(weights, tmp_path_factory):
    """The config of a smaller demo, which stands in for the demo."""
    folder = tmp_path_factory.mktemp("demo")
    shutil.copytree(weights, folder / "weights")
    shutil.copy(WEIGHTS / GAP, folder / "weights")
    write_demo(folder / "demo", folder / "weights", TINY)
    return folder / "demo" / "fast3d.yaml"


@pytest.mark.parametrize("text", [BEFORE, DOCS["quick-start"]], ids=["README", "quick-start"])
def test_the_demo_s_commands(fast3d, demo, monkeypatch, text):
    """In order, in an empty folder, where commands have no config."""
    monkeypatch.setattr("fast3d_core.files.cache.CACHE", demo.parents[1])
    commands = fast3d_commands(text)
    assert len(commands) >= 5
    for command in commands:
        assert fast3d(*command).stdout, command


def test_the_other_commands(fast3d, tmp_path, files):
    """In order, in one folder, where the miniature's files lie under the default names, with four layers."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    commands = fast3d_commands(AFTER)
    assert len(commands) >= 8
    for command in commands:
        assert fast3d(*command).stdout, command


@pytest.mark.parametrize("start", ["accelerate launch ", "fast3d eval "])
def test_several_processes(tmp_path, start):
    (command,) = [line for line in lines(DOCS["paper"], "bash") if line.startswith(start) and "processes" in line]
    module = command.replace(
        start, {"accelerate launch ": "accelerate.commands.launch "}.get(start, "fast3d_cli eval ")
    )
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(module), "--no-meteor"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "sap-alpha0.5" / "result.json").exists()


def test_make_targets_exist():
    targets = [line.split()[1] for line in COMMANDS if line.startswith("make ")]
    assert targets == ["demo", "test", "bench"]
    assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)


def test_every_command_is_tried():
    tried = ("fast3d ", "make ", "pip install .")  # make test and make demo install by pip
    assert [line for line in COMMANDS if not line.startswith(tried)] == []


def test_python(tmp_path):
    """In a process of its own, as a user's would run; five lines."""
    (code,) = blocks(README, "python")
    assert len([line for line in code.splitlines() if line]) == 5
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_method_of_contributing_md(fast3d, tmp_path, packages):
    """The example of CONTRIBUTING.md runs as it stands, from a package with its entry point, through both engines."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code, entry = (
        "\n".join(line.removeprefix("   ") for line in blocks(text, kind)[0].splitlines())
        for kind in ("python", "toml")
    )
    assert entry.splitlines() == ['[project.entry-points."fast3d.pruners"]', 'mymethod = "mymethod:MyMethod"']
    packages.install(code, "mymethod=MyMethod", package="mymethod")
    assert METHODS.problems == [] and METHODS.package("mymethod") == "mymethod 1.0"
    (command,) = re.findall(r"`fast3d (eval --method mymethod [^`]*)`", text)
    answers = []
    for engine in ("fast", "reference"):
        words = [*shlex.split(command), "--dataset", "scanqa", "--no-meteor", "--engine", engine, "--json"]
        result = json.loads(fast3d(*words).stdout)
        assert result["settings"]["spare"] == "window" and result["pruning"]["ratio"] == 100 * (1 - 2 / 4) * 0.95
        answers.append((tmp_path / "runs" / result["name"] / "predictions" / "scanqa.json").read_text())
    assert answers[0] == answers[1]
