"""Both engines against the published code's recorded answers, in all 14 recorded modes and for all 15 samples."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fast3d_core.llm import reference
from fast3d_core.plan import Plan, Stage
from tests.conftest import MODES, RECORDED

BOS, EOS = 1, 2
FIRST_LOGITS = load_file(RECORDED / "first_logits.safetensors")


def settings(fixture, search):
    """The published search, and the greedy one that was recorded beside it."""
    if search == "beam":
        return fixture.config.generation
    return replace(fixture.config.generation, beams=1, repetition_penalty=1.0)


def test_all_modes_are_here():
    assert len(MODES) == 14


@pytest.mark.parametrize("mode", MODES)
def test_first_logits_and_kept_tokens(fixture, recorded, mode):
    pruner, maps, key = fixture.mode(mode)
    plans = fixture.plans(pruner, maps, key)
    state = fixture.model.engine.prefill(fixture.prompts, plans, fixture.config.generation)
    for i, (sample, want) in enumerate(zip(fixture.samples, recorded[mode], strict=True)):
        logits = FIRST_LOGITS[f"{mode}/{sample.dataset}/{sample.index}"]
        torch.testing.assert_close(state.logits[i], logits, rtol=0, atol=1e-4)
        masked = reference.first_logits(fixture.model.llm, fixture.prompts[i], plans[i])
        torch.testing.assert_close(masked, logits, rtol=0, atol=1e-4)
        if mode != "vanilla":
            assert state.kept[i][-1].tolist() == want["prefill_kept"]


@pytest.mark.parametrize("search", ["beam", "greedy"])
@pytest.mark.parametrize("mode", MODES)
def test_reference(fixture, recorded, mode, search):
    plans = fixture.plans(*fixture.mode(mode))
    chosen = settings(fixture, search)
    answers = fixture.model.generate(fixture.prompts, plans, chosen, engine="reference")
    for answer, want in zip(answers, recorded[mode], strict=True):
        assert answer.generation.ids == want[f"{search}_ids"]
        if search == "beam":
            assert answer.text == want["pred"]
            assert answer.generation.score == pytest.approx(want["beam_sequence_score"], abs=1e-4)
        if mode.startswith("fastv"):  # FastV picks anew at every step
            kept = [offsets.tolist() for offsets in answer.generation.kept_per_step]
            assert kept == want[f"{search}_kept_per_step"]


@pytest.mark.parametrize("batch", [1, 4, 15])
@pytest.mark.parametrize("search", ["beam", "greedy"])
@pytest.mark.parametrize("mode", MODES)
def test_fast(fixture, recorded, mode, search, batch):
    """The same ids; FastV's are those of the recorded variant whose set is fixed at prefill."""
    plans = fixture.plans(*fixture.mode(mode))
    chosen = settings(fixture, search)
    column = f"fixed_{search}_ids" if mode.startswith("fastv") else f"{search}_ids"
    got = []
    for i in range(0, 15, batch):
        prompts = fixture.prompts[i : i + batch]
        got += fixture.model.engine.generate(prompts, plans[i : i + batch], chosen, BOS, EOS)
    assert [generation.ids for generation in got] == [want[column] for want in recorded[mode]]


def test_fastv_scores_match_the_recorded_rows(fixture):
    """Attention of the last prompt token at layer K - 1, as recorded for K = 2."""
    rows = load_file(RECORDED / "fastv_prefill_rows_K2.safetensors")
    seen = []

    def select(view):
        seen.append(view.last)
        return torch.arange(15)

    plans = [Plan(300, [Stage(2, 15, select, look=("last",))]) for _ in fixture.prompts]
    fixture.model.engine.prefill(fixture.prompts, plans, fixture.config.generation)
    for sample, row in zip(fixture.samples, seen, strict=True):
        torch.testing.assert_close(row, rows[f"{sample.dataset}/{sample.index}"], rtol=0, atol=1e-6)
