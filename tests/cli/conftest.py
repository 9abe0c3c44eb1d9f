import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from fast3d_cli.app import main
from fast3d_cli.console import note_once

ROOT = Path(__file__).parents[2]
Run = Callable[..., "Done"]


@dataclass
class Done:
    """A command that has run."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def fast3d(tmp_path, monkeypatch, capfd) -> Run:
    """Runs the command in an empty folder, inside this process: importing torch anew takes seconds."""

    def run(*args, check=True):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["fast3d", *map(str, args)])
        monkeypatch.setenv("COLUMNS", "100")
        note_once.cache_clear()
        capfd.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        done = Done(code, *capfd.readouterr())
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run
