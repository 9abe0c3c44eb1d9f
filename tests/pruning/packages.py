"""Packages that bring pruning methods, made for a test: a module and what pip would leave of an installed package."""

import sys
from pathlib import Path

import pytest

from fast3d_core.pruning import METHODS

HEAD = """
from dataclasses import dataclass
from typing import ClassVar, Literal
from fast3d_core.fields import setting
from fast3d_core.pruning import Gap, PlanRequest, Pruner, Vanilla
"""

ODD = (
    HEAD
    + '''
import hashlib


@dataclass(frozen=True)
class Odd(Pruner):
    """Keeps the objects whose numbers are drawn by what is set and what a scene holds."""

    layer: int
    keep: int
    sharpness: float = setting(0.5, "how much the boxes count", above=0, at_most=2)
    use_text: bool = setting(False, "whether the question counts")
    word: str = setting("object", "what is mixed in")
    mode: Literal["near", "far"] = setting("near", "which end is kept")
    rounds: int = setting(1, "how often it is mixed", at_least=1, at_most=9)
    name: ClassVar[str] = "odd"
    title: ClassVar[str] = "Odd one"
    colour: ClassVar[str] = "#aa4400"
    source: ClassVar[str] = "arXiv 0000.00000"

    def plan(self, request):
        import torch

        text = [self.word, self.mode, self.rounds, request.question if self.use_text else "", request.layers]
        text += [label or "" for label in request.labels]
        digest = hashlib.sha256(repr(text).encode()).digest()
        scores = torch.tensor([digest[slot % 32] / 255 for slot in range(request.units.count)])
        scores = scores + self.sharpness * request.boxes[:, 0] + request.features_3d[:, 0] + request.features_2d[:, 0]
        scores = scores if self.mode == "near" else -scores
        return Gap(self.layer, self.keep).plan(PlanRequest(request.dataset, request.index, request.units, scores))
'''
)


class Packages:
    """Installs packages into a folder that only this test has on its path.

    Args:
        folder: of this test.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self._folder, self._monkeypatch = folder, monkeypatch
        folder.mkdir()
        monkeypatch.syspath_prepend(folder)

    def install(self, source: str, *names: str, package: str = "odd-methods", version: str = "1.0") -> None:
        """A package with one module, `source`, whose entry points are "name=Class"."""
        module = package.replace("-", "_")
        sys.modules.pop(module, None)
        (self._folder / f"{module}.py").write_text(source)
        about = self._folder / f"{module}-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        lines = [f"{name} = {module}:{cls}\n" for name, cls in (one.split("=") for one in names)]
        (about / "entry_points.txt").write_text("[fast3d.pruners]\n" + "".join(lines))
        self._monkeypatch.syspath_prepend(self._folder)  # so that Python looks again
        METHODS.refresh()

    @property
    def folder(self) -> Path:
        return self._folder


@pytest.fixture
def packages(tmp_path_factory, monkeypatch):
    """Where a test installs packages; they are gone after it."""
    with monkeypatch.context() as own:
        yield Packages(tmp_path_factory.mktemp("site") / "packages", own)
    METHODS.refresh()


@pytest.fixture
def odd(packages):
    """A method with a field of every kind, from another package."""
    packages.install(ODD, "odd=Odd")
    return METHODS["odd"]
