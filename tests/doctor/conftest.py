"""Examining a copy of the miniature in which something was broken."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fast3d_core.config import Config, load_config
from fast3d_core.doctor import Finding, Options, examine
from fast3d_core.files.files import load_torch

Examine = Callable[..., list[Finding]]


@pytest.fixture(autouse=True)
def unseen(monkeypatch, tmp_path) -> None:
    """No GPU that torch does not see, whatever machine the tests run on."""
    monkeypatch.setattr("fast3d_core.doctor.machine._GPUS", tmp_path / "no driver")


@pytest.fixture
def files(files: Path) -> Path:
    """The miniature's, with a Scan2Cap corpus as the released one is; its own is as its recorded scores need it."""
    edit_json(files / "annotations" / "scan2cap_val_corpus.json", wrap)
    return files


def wrap(corpus: dict[str, list[str]]) -> None:
    corpus.update({key: [f"sos {caption} eos" for caption in captions] for key, captions in corpus.items()})


@pytest.fixture
def examined(files) -> Examine:
    """All findings about the files; keys are `Options`'s, positional arguments are config overrides."""

    def run(*overrides: str, **options) -> list[Finding]:
        def load() -> Config:
            return load_config(files / "fast3d.yaml", [f"runs={files / 'runs'}", *overrides])

        return list(examine(Options(load, **options)))

    return run


def troubles(findings: list[Finding]) -> list[Finding]:
    """But for one that the miniature has: its maps are by the published code, of which no ledger tells."""
    return [finding for finding in findings if finding.status != "ok" and "made elsewhere" not in finding.what]


def edit_json(path: Path, change: Callable) -> None:
    """`change` gets the content and changes it in place."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_torch(path: Path, change: Callable) -> None:
    content = load_torch(path, "a test")
    change(content)
    torch.save(content, path)
