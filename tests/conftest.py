"""The tiny recorded Chat-Scene: its files are the miniature, the published code's answers lie beside it."""

import os
from pathlib import Path

# Without a config, commands use the miniature, which stands in for the embedded demo: it is smaller.
os.environ["FAST3D_CACHE"] = str(Path(__file__).parent / "data" / "cache")
# Triton's kernels run in its interpreter where there is no GPU; Triton reads this when it is imported, by torch.
if not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"

import json
import re
import shutil
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import DATASETS, Config, load_config
from fast3d_core.data.annotations import Sample, Scenes
from fast3d_core.data.detections import Detections
from fast3d_core.evaluation.context import Context
from fast3d_core.llm.generation import Prompt
from fast3d_core.models.chat_scene.model import ChatScene
from fast3d_core.plan import Plan
from fast3d_core.pruning import FastV, Gap, PlanRequest, Pruner, Sap, Vanilla
from tests.maps.scores import load_maps

ROOT_DATA = Path(__file__).parent / "data"
MINIATURE = ROOT_DATA / "miniature" / "fast3d.yaml"
RECORDED = ROOT_DATA / "chat_scene"
MODES = sorted(path.stem for path in (RECORDED / "results").glob("*.json"))

torch.set_num_threads(1)  # the tests share the cores


@dataclass
class Fixture:
    """The model, its 15 recorded samples in recorded order, their prompts, and what methods may look at."""

    config: Config
    model: ChatScene
    samples: list[Sample]
    prompts: list[Prompt]
    context: Context

    def plans(self, pruner: Pruner, maps: Path | None = None, key: str = "a_map") -> list[Plan]:
        loaded = {d: load_maps(maps, d, 3, key=key) for d in DATASETS} if maps else None
        requests = [
            PlanRequest(
                s.dataset, s.index, self.model.units, loaded and loaded[s.dataset][s.index], **self.context.of(s)
            )
            for s in self.samples
        ]
        return [pruner.plan(request) for request in requests]

    def mode(self, mode: str) -> tuple[Pruner, Path | None, str]:
        """The method, the maps folder and the map key of a recorded mode."""
        folders = {
            "gap": self.config.maps.predicted,
            "syn": RECORDED / "pred_attn_maps_syn",
            "amap": self.config.maps.targets,
            "amapori": self.config.maps.targets,
        }
        if mode == "vanilla":
            return Vanilla(), None, "a_map"
        if m := re.fullmatch(r"fastv_K(\d+)_rank(\d+)", mode):
            return FastV(int(m[1]), int(m[2])), None, "a_map"
        if m := re.fullmatch(r"(?:map|oracle)_(\w+)_K(\d+)_rank(\d+)", mode):
            return Gap(int(m[2]), int(m[3])), folders[m[1]], "a_map_ori" if m[1] == "amapori" else "a_map"
        m = re.fullmatch(r"sap_(\w+)_K0_alpha([\d.]+)", mode)
        assert m, mode
        return Sap(float(m[2])), folders[m[1]], "a_map"


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Away from the repository, where `make demo` leaves files that the default config would take."""
    os.chdir(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="session")
def fixture() -> Fixture:
    config = load_config(MINIATURE)
    model = ChatScene.from_config(config)
    scenes = Scenes(config.data.annotations)
    order = ("scanrefer", "scan2cap", "scanqa", "sqa3d", "multi3dref")
    samples = [sample for dataset in order for sample in load_samples(config.data.annotations, dataset)]
    detections = Detections(config.data.annotations)
    context = Context(model.shape.layers, scenes.__getitem__, detections.boxes, detections.labels)
    return Fixture(config, model, samples, [model.prompt(scenes[s.scene_id], s.prompt) for s in samples], context)


@pytest.fixture(scope="session")
def recorded() -> dict[str, list[dict[str, Any]]]:
    """mode -> what the published code gave for each of the 15 samples."""
    return {mode: json.loads((RECORDED / "results" / f"{mode}.json").read_text()) for mode in MODES}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A writable copy of the released files in miniature, with its fast3d.yaml; what a test breaks, it breaks here."""
    folder = tmp_path / "files"
    shutil.copytree(MINIATURE.parent, folder)
    return folder
