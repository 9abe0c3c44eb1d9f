"""Packages outside fast3d, as if they were installed: folders with a dist-info on the search path."""

import os
from pathlib import Path

import pytest

from fast3d_core.pruning import METHODS

# ruff: noqa: F401 (fixtures)
from tests.cli.conftest import fast3d
from tests.report.conftest import chromium, visit

PLUGINS = Path(__file__).parent


@pytest.fixture
def install(monkeypatch):
    """Puts a folder with packages on the search path, of this process and of those that it starts."""

    def put(folder):
        monkeypatch.syspath_prepend(str(folder))
        before = os.environ.get("PYTHONPATH")
        monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{before}" if before else str(folder))
        METHODS.refresh()

    yield put
    monkeypatch.undo()
    METHODS.refresh()
