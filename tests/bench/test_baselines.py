"""Stock transformers, as the bench drives it, does the work that ours is compared with: it gives the same answers."""

from dataclasses import replace

import pytest
import torch

from fast3d_core.bench.baselines import attention_of, stock_generate, without_pruned
from fast3d_core.llm.generation import Prompt
from fast3d_core.plan import Plan
from fast3d_core.pruning import Sap, Vanilla


@pytest.fixture
def settings(fixture):
    return replace(fixture.config.generation, max_new_tokens=12, min_length=13)


def ours(fixture, prompts, settings):
    plans = [Plan(prompt.visual) for prompt in prompts]
    answers = fixture.model.generate(prompts, plans, settings)
    assert {answer.generation.steps for answer in answers} == {12}
    return [answer.generation.ids[1:] for answer in answers]  # without BOS


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("kind", ["sdpa", "eager"])
def test_unpruned(fixture, settings, beams, kind):
    settings = replace(settings, beams=beams)
    prompts = fixture.prompts[:6]  # of different lengths: left-padded
    assert len({len(prompt) for prompt in prompts}) > 1
    before = fixture.model.llm.config._attn_implementation
    with attention_of(fixture.model.llm, kind):
        rows = [prompt.embeds for prompt in prompts]
        stock = stock_generate(fixture.model.llm, rows, settings, 1, 2, attentions=kind == "eager")
    assert stock == ours(fixture, prompts, settings)
    assert fixture.model.llm.config._attn_implementation == before


def test_pruned(fixture, settings):
    """As ours on prompts without these tokens: stock leaves no gap in the positions."""
    prompts = fixture.prompts[:6]
    plans = fixture.plans(Sap(0.5), fixture.config.maps.predicted)[:6]
    rows = [without_pruned(prompt, plan) for prompt, plan in zip(prompts, plans, strict=True)]
    stages = [plan.stages[0] for plan in plans]
    assert [len(row) for row in rows] == [len(p) - 300 + one.count for p, one in zip(prompts, stages, strict=True)]
    first = prompts[0].visual_start + stages[0].select
    assert torch.equal(rows[0][prompts[0].visual_start :][: stages[0].count], prompts[0].embeds[first])
    shorter = [Prompt(row, p.visual_start, one.count) for row, p, one in zip(rows, prompts, stages, strict=True)]
    assert stock_generate(fixture.model.llm, rows, settings, 1, 2) == ours(fixture, shorter, settings)


def test_the_first_scores_are_told_once(fixture, settings):
    told = []
    rows = [fixture.prompts[0].embeds]
    stock_generate(fixture.model.llm, rows, settings, 1, 2, first_scores=lambda: told.append(1))
    assert told == [1]


def test_nothing_is_removed_without_pruning(fixture):
    (plan,) = fixture.plans(Vanilla())[:1]
    assert torch.equal(without_pruned(fixture.prompts[0], plan), fixture.prompts[0].embeds)
