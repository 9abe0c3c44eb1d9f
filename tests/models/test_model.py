import json

import pytest
import torch
from safetensors.torch import load_file

from fast3d_core.config import load_config
from fast3d_core.data.annotations import Scene
from fast3d_core.errors import DataError, UsageError
from fast3d_core.models.chat_scene.model import ChatScene
from fast3d_core.runtime.devices import pick_device
from tests.conftest import MINIATURE, RECORDED


def test_prompts_match_the_recorded_embeddings(fixture):
    """Text rows bit for bit; projected rows to rounding, since matrix products differ between processors."""
    recorded = load_file(RECORDED / "inputs_embeds.safetensors")
    prompts = {f"{s.dataset}/{s.index}": p for s, p in zip(fixture.samples, fixture.prompts, strict=True)}
    for name, embeds in recorded.items():
        prompt = prompts[name]
        start, end = prompt.visual_start, prompt.visual_start + prompt.visual
        assert (start, prompt.visual) == (83, 300)
        assert torch.equal(prompt.embeds[:start], embeds[:start])
        assert torch.equal(prompt.embeds[end:], embeds[end:])
        assert torch.equal(prompt.embeds[start:end:3], embeds[start:end:3])  # the object identifiers
        torch.testing.assert_close(prompt.embeds, embeds, rtol=0, atol=3e-6)


def test_prompts_match_the_recorded_digests(fixture):
    digests = json.loads((RECORDED / "inputs_embeds_digest.json").read_text())
    for sample, prompt in zip(fixture.samples, fixture.prompts, strict=True):
        digest = digests[f"{sample.dataset}/{sample.index}"]
        embeds = prompt.embeds.double()
        assert list(embeds.shape) == digest["shape"]
        assert embeds.sum().item() == pytest.approx(digest["sum"], abs=1e-3)
        assert embeds.abs().sum().item() == pytest.approx(digest["abs_sum"], abs=1e-3)


def test_system_prefix_uses_the_original_embedding(fixture):
    """Chat-Scene embeds the fixed text before it loads the checkpoint; the question gets the checkpoint's rows."""
    model = fixture.model
    trained = model.llm.model.embed_tokens.weight[model.tokenizer.bos_id]
    assert (fixture.prompts[0].embeds[0] - trained).abs().max() > 0.01


def test_scene_of_another_feature_width(fixture):
    scene = Scene("scene9999_00", torch.zeros(100, 32), torch.zeros(100, 64), torch.zeros(100, dtype=torch.bool))
    with pytest.raises(DataError, match="scene9999_00 are 32 .* the checkpoint reads 64 and 64"):
        fixture.model.prompt(scene, "What is this?")


def test_absent_cuda():
    if torch.cuda.is_available():
        with pytest.raises(UsageError, match="CUDA devices"):
            pick_device("cuda:99")
    else:
        with pytest.raises(UsageError, match="finds no CUDA device; use --set model.device=cpu"):
            pick_device("cuda")


def test_bfloat16_runs(fixture):
    """A released run is bf16; on random weights only its first token can be compared with fp32."""
    config = load_config(MINIATURE, ["model.dtype=bfloat16", "generation.max_new_tokens=2"])
    model = ChatScene.from_config(config)
    assert model.llm.dtype == torch.bfloat16
    prompts = [p.__class__(p.embeds.bfloat16(), p.visual_start, p.visual) for p in fixture.prompts[:4]]
    from fast3d_core.pruning import Vanilla

    plans = fixture.plans(Vanilla())[:4]
    half = model.engine.prefill(prompts, plans, config.generation).logits
    full = fixture.model.engine.prefill(fixture.prompts[:4], plans, config.generation).logits
    torch.testing.assert_close(half, full, rtol=0, atol=0.3)
