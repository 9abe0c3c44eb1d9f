"""Nothing that lies in the current folder is imported, by whatever process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fast3d_cli.search_path import python_arguments

ROOT = Path(__file__).parents[2]
_TRAP = "open('executed', 'a').write(__name__)\nraise ImportError('code of the current folder was run')\n"


@pytest.fixture
def hostile(tmp_path) -> Path:
    """A folder with modules that would be taken for those of the same names."""
    folder = tmp_path / "hostile"
    (folder / "torch").mkdir(parents=True)
    for name in ("yaml.py", "random.py", "colorsys.py", "typer.py", "torch/__init__.py"):
        (folder / name).write_text(_TRAP)
    return folder


def run(folder: Path, *command: str, python_path: str = str(ROOT)) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONSAFEPATH", None)  # as on Python 3.10, which does not know it
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_python_is_started_with_our_own_places(hostile):
    done = run(hostile, sys.executable, *python_arguments("import colorsys; print(colorsys.__file__, sys.argv)", ["a"]))
    assert done.returncode == 0, done.stderr
    assert "hostile" not in done.stdout and "['-c', 'a']" in done.stdout
    assert not (hostile / "executed").exists()
    # The same in the ordinary way shows that the trap works.
    assert "was run" in run(hostile, sys.executable, "-c", "import colorsys").stderr


@pytest.mark.parametrize("python_path", [str(ROOT), f"{os.pathsep}{ROOT}", f".{os.pathsep}{ROOT}{os.pathsep}"])
def test_neither_m_nor_an_empty_entry_lets_it_in(hostile, python_path):
    for start in (["-m", "fast3d_cli"], ["-c", "import sys; from fast3d_cli.app import main; main()"]):
        done = run(hostile, sys.executable, *start, "doctor", "--json", python_path=python_path)
        assert '"findings"' in done.stdout, done.stderr
    assert not (hostile / "executed").exists()


def test_processes_that_it_starts_do_not_either(hostile):
    done = run(hostile, sys.executable, "-c", "import os, fast3d_cli; print(os.environ['PYTHONPATH'])",
               python_path=f"{os.pathsep}../{os.pathsep}{ROOT}")  # fmt: skip
    assert done.stdout.strip() == f"{hostile.parent}{os.pathsep}{ROOT}", done.stderr


def test_a_checkout_that_is_not_installed_works_from_its_own_folder():
    """Where it is installed, too, this shows only that the folder stays."""
    code = "import sys, fast3d_cli; print(sys.path)"
    assert repr(str(ROOT)) in run(ROOT, sys.executable, "-c", code, python_path=".").stdout


def test_several_processes_do_not_run_code_of_the_current_folder(hostile):
    arguments = ["eval", "-m", "vanilla", "--dataset", "scanqa", "--no-meteor", "--set", "generation.max_new_tokens=2"]
    done = run(hostile, sys.executable, "-m", "fast3d_cli", *arguments, "--processes", "2",
               python_path=f"{os.pathsep}{ROOT}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (hostile / "executed").exists()
