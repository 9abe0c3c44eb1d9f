"""The engine on a CUDA device: the recorded answers in float32 without TF32, and what half precision adds.

Skipped where there is none, as in CI.
"""

from dataclasses import replace

import pytest
import torch

from fast3d_core.config import load_config
from fast3d_core.data.annotations import Scenes
from fast3d_core.errors import NotFiniteError
from fast3d_core.llm.engine import prefill
from fast3d_core.llm.engine.fast import FastEngine
from fast3d_core.models.chat_scene.model import ChatScene
from fast3d_core.pruning import FastV, Gap, Sap, Vanilla
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


def test_batches_in_a_row(fixture, recorded, on_gpu):
    """Steps that were captured for one batch serve the next ones."""
    model, prompts = on_gpu
    engine = FastEngine(model.llm)
    for mode in ("vanilla", "sap_gap_K0_alpha0.5", "map_gap_K2_rank15", "sap_gap_K0_alpha0.5"):
        plans, got = fixture.plans(*fixture.mode(mode)), []
        for i in range(0, 15, 4):
            got += engine.generate(prompts[i : i + 4], plans[i : i + 4], fixture.config.generation, 1, 2)
        assert [generation.ids for generation in got] == [want["beam_ids"] for want in recorded[mode]]


@pytest.fixture(scope="module")
def in_half(fixture):
    """The model in half precision, whose prompts are packed, and its prompts."""
    model = ChatScene.from_config(load_config(MINIATURE, ["model.device=cuda", "model.dtype=float16"]))
    scenes = Scenes(fixture.config.data.annotations)
    return model, [model.prompt(scenes[s.scene_id], s.prompt) for s in fixture.samples]


@pytest.mark.parametrize("reuse_prefix", [False, True])
@pytest.mark.parametrize("pruner", [Vanilla(), Gap(2, 15), Gap(0, 45), FastV(1, 30), Sap(0.35)], ids=repr)
def test_packed_prompts_in_half_precision(fixture, in_half, pruner, reuse_prefix):
    model, prompts = in_half
    assert model.engine.attention == "torch-varlen + triton" or "flash-attn" in model.engine.attention
    plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)
    settings = replace(fixture.config.generation, max_new_tokens=3)
    want = FastEngine(fixture.model.llm).prefill(fixture.prompts, plans, settings, reuse_prefix).logits
    got = model.engine.prefill(prompts, plans, settings, reuse_prefix).logits
    torch.testing.assert_close(got.cpu(), want.cpu(), rtol=0, atol=0.12)  # on a CPU it is 0.07


@pytest.mark.parametrize("reuse_prefix", [False, True])
@pytest.mark.parametrize("pruner", [Vanilla(), Gap(2, 15), Sap(0.35)], ids=repr)
def test_captured_prefill(fixture, in_half, monkeypatch, pruner, reuse_prefix):
    """A small batch is read by a CUDA graph that was captured for another of about its size."""
    model, prompts = in_half
    plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)
    settings = replace(fixture.config.generation, max_new_tokens=5)

    def answers():
        engine, batches = FastEngine(model.llm), ((0, 2), (3, 5), (7, 9), (0, 2))
        return [
            [engine.generate(prompts[i:j], plans[i:j], settings, 1, 2, reuse_prefix) for i, j in batches]
            for _ in range(3)
        ], engine

    captured, engine = answers()
    assert any(one._graph is not None for one in engine._prefill._captured.values())
    if reuse_prefix:
        assert any(one._graph is not None and one._inputs.runs[0].cached for one in engine._prefill._captured.values())
    monkeypatch.setattr(prefill, "_FEW", 0)
    plain, _ = answers()
    for a, b in zip(captured, plain, strict=True):
        assert [[g.ids for g in batch] for batch in a] == [[g.ids for g in batch] for batch in b]


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("reuse_prefix", [False, True])
def test_numbers_that_are_not_finite_are_seen_in_captured_steps(fixture, in_half, beams, reuse_prefix):
    """In a graph nothing may wait for the GPU, so that sums tell; the next batch is answered as before."""
    model, prompts = in_half
    plans, settings = fixture.plans(Vanilla()), replace(fixture.config.generation, beams=beams, max_new_tokens=6)
    engine = FastEngine(model.llm)

    def answers(some):
        return [one.ids for one in engine.generate(some, plans[: len(some)], settings, 1, 2, reuse_prefix)]

    want = answers(prompts[:3])
    for _ in range(2):
        answers(prompts[:3])  # by captured steps
    assert any(decoder._graph is not None for decoder in engine._decoders.values())
    broken = replace(prompts[2], embeds=prompts[2].embeds * torch.nan, prefix=prompts[2].prefix * torch.nan)
    with pytest.raises(NotFiniteError):
        answers([*prompts[:2], broken])
    assert answers(prompts[:3]) == want
    head = model.llm.lm_head.weight
    kept = head[77].clone()
    head[77] = torch.inf
    try:
        with pytest.raises(NotFiniteError):
            answers(prompts[:3])
    finally:
        head[77] = kept
    assert answers(prompts[:3]) == want
