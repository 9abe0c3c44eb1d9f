import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fast3d(tmp_path) -> Run:
    """Runs the command in an empty folder, in a process of its own."""

    def run(*args, cwd=tmp_path, check=True, **env):
        done = subprocess.run(
            [sys.executable, "-m", "fast3d_cli", *map(str, args)],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "100", **env},
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run
