"""The recorded answers on a CUDA device, in float32 without TF32. Skipped where there is none, as in CI."""

import pytest
import torch

from fast3d_core.chat_scene.model import ChatScene
from fast3d_core.config import load_config
from fast3d_core.data.annotations import Scenes
from tests.conftest import MINIATURE, MODES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


@pytest.fixture(scope="module")
def on_gpu(fixture):
    """The model and the 15 prompts on the device."""
    torch.backends.cuda.matmul.allow_tf32 = False
    model = ChatScene.from_config(load_config(MINIATURE, ["model.device=cuda"]))
    scenes = Scenes(fixture.config.data.annotations)
    return model, [model.prompt(scenes[s.scene_id], s.prompt) for s in fixture.samples]


@pytest.mark.parametrize("mode", MODES)
def test_fast_on_a_gpu(fixture, recorded, on_gpu, mode):
    model, prompts = on_gpu
    plans = fixture.plans(*fixture.mode(mode))
    column = "fixed_beam_ids" if mode.startswith("fastv") else "beam_ids"
    got = model.engine.generate(prompts, plans, fixture.config.generation, 1, 2)
    assert [generation.ids for generation in got] == [want[column] for want in recorded[mode]]
