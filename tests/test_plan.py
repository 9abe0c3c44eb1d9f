"""Costs against an obvious count, one multiply-add at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast3d_core.errors import Fast3DError
from fast3d_core.plan import LlmShape, Plan, PlanError, cost, pruning_ratio, scene_flops

SHAPE = LlmShape(layers=3, hidden=8, heads=2, kv_heads=1, head_dim=4, intermediate=12, vocab=20)
VICUNA = LlmShape(layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, intermediate=11008, vocab=32100)


def counted(shape, layer, text, visual, count, beams, steps, known=0):
    """Multiply-adds of prefill and decoding and cached numbers, by walking over layers, rows and keys."""
    prefill = decode = cached = 0

    def one_row(keys):
        attention = (
            shape.hidden * shape.head_dim * (shape.heads + 2 * shape.kv_heads)
            + shape.heads * shape.head_dim * shape.hidden
        )
        return attention + 3 * shape.hidden * shape.intermediate + 2 * keys * shape.heads * shape.head_dim

    for i in range(shape.layers):
        tokens = text + (visual if i < layer else count)
        there = known - (visual + text - tokens) if known else 0
        for row in range(there, tokens):
            prefill += one_row(keys=row + 1)
        cached += tokens * 2 * shape.kv_heads * shape.head_dim
        for step in range(1, steps):
            for _ in range(beams):
                decode += one_row(keys=tokens + step)
                cached += 2 * shape.kv_heads * shape.head_dim
    prefill += shape.hidden * shape.vocab
    decode += max(steps - 1, 0) * beams * shape.hidden * shape.vocab
    return 2 * prefill, 2 * decode, cached


@settings(deadline=None)
@given(st.integers(0, 2), st.integers(0, 9), st.integers(1, 9), st.integers(1, 3), st.integers(0, 5), st.data())
def test_cost(layer, text, visual, beams, steps, data):
    count = data.draw(st.integers(0, visual))
    got = cost(SHAPE, layer=layer, text=text, visual=visual, count=count, beams=beams, steps=steps, element_bytes=2)
    prefill, decode, cached = counted(SHAPE, layer, text, visual, count, beams, steps)
    assert (got.prefill_flops, got.decode_flops, got.kv_bytes) == (prefill, decode, 2 * cached)


@settings(deadline=None)
@given(st.integers(0, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.data())
def test_cost_of_a_question_on_a_known_scene(layer, text, visual, beams, steps, data):
    count = data.draw(st.integers(0, visual))
    known = visual + data.draw(st.integers(0, text - 1))
    sizes = {"layer": layer, "text": text, "visual": visual, "count": count, "beams": beams, "steps": steps}
    got = cost(SHAPE, **sizes, element_bytes=1, known=known)
    assert (got.prefill_flops, got.decode_flops, got.kv_bytes) == counted(SHAPE, **sizes, known=known)
    if count == visual:  # scene and question together are the prompt
        assert got.prefill_flops + scene_flops(SHAPE, known) == cost(SHAPE, **sizes, element_bytes=1).prefill_flops


def test_vicuna_in_known_units():
    assert VICUNA.parameters == pytest.approx(6.74e9, rel=1e-2)
    full = cost(VICUNA, layer=0, text=80, visual=300, count=300, beams=5, steps=16, element_bytes=2)
    assert full.prefill_flops == pytest.approx(2 * 6.48e9 * 380 * 1.01, rel=2e-2)


@given(st.integers(1, 60), st.data())
def test_ratio_is_the_share_of_layer_token_pairs_that_are_gone(layers, data):
    layer, count = data.draw(st.integers(0, layers - 1)), data.draw(st.integers(0, 300))
    seen = sum(300 if i < layer else count for i in range(layers))
    assert pruning_ratio(layers, layer, 300, count) == pytest.approx(1 - seen / (300 * layers), abs=1e-12)


BAD_OFFSETS = [
    (torch.tensor([0, 2, 1]), "ascend"),
    (torch.tensor([0, 1, 1]), "each once"),
    (torch.tensor([-1, 0, 1]), "from 0"),
    (torch.tensor([0, 1, 9]), "at most 8"),
    (torch.tensor([0, 1]), r"3 numbers of torch.int64, not torch.int64 \(2,\)"),
    (torch.tensor([[0, 1, 2]]), r"not torch.int64 \(1, 3\)"),
    (torch.tensor([0, 1, 2], dtype=torch.int32), "not torch.int32"),
    (torch.tensor([0.0, 1.0, 2.0]), "not torch.float32"),
    ([0, 1, 2], "not list"),
]


@pytest.mark.parametrize(("kept", "problem"), BAD_OFFSETS)
def test_offsets_that_no_engine_can_keep(kept, problem):
    with pytest.raises(PlanError, match=problem):
        Plan(1, 9, 3, kept)
    with pytest.raises(PlanError, match=problem):
        Plan(1, 9, 3, choose=lambda scores: kept).resolve(torch.zeros(9))


@pytest.mark.parametrize(("numbers", "problem"), [
    ((-1, 9, 3), r"integers from 0 on, not \(-1, 9, 3\)"),
    ((1, -9, 0), "integers from 0 on"),
    ((1, 9, -3), "integers from 0 on"),
    ((1.0, 9, 3), "integers from 0 on"),
    ((True, 9, 3), "integers from 0 on"),
    ((1, 9, 10), "keeps 10 of 9"),
])  # fmt: skip
def test_numbers_that_no_plan_has(numbers, problem):
    with pytest.raises(PlanError, match=problem):
        Plan(*numbers)


def test_a_plan_knows_what_it_keeps_or_decides_it():
    with pytest.raises(PlanError, match="not both"):
        Plan(1, 9, 1, torch.tensor([0]), lambda scores: torch.tensor([0]))
    with pytest.raises(PlanError, match="at least 1"):
        Plan(0, 9, 1, choose=lambda scores: torch.tensor([0]))
    assert issubclass(PlanError, Fast3DError)  # a line on the terminal, not a traceback
    assert Plan(1, 9, 0, torch.zeros(0, dtype=torch.int64)).count == 0
    kept = torch.tensor([0, 4, 8])
    assert Plan(2, 9, 3, choose=lambda scores: kept).resolve(torch.zeros(9)) is kept
