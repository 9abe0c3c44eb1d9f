"""Costs against an obvious count, one multiply-add at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast3d_core.errors import Fast3DError
from fast3d_core.llm.cost import LlmShape, cost, scene_flops
from fast3d_core.plan import Plan, PlanError, Stage, Units, View, layer_counts, pruning_ratio

SHAPE = LlmShape(layers=3, hidden=8, heads=2, kv_heads=1, head_dim=4, intermediate=12, vocab=20)
VICUNA = LlmShape(layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, intermediate=11008, vocab=32100)


def counted(shape, counts, text, beams, steps, new=None):
    """Multiply-adds of prefill and decoding and cached numbers, by walking over layers, rows and keys."""
    prefill = decode = cached = 0

    def one_row(keys):
        attention = (
            shape.hidden * shape.head_dim * (shape.heads + 2 * shape.kv_heads)
            + shape.heads * shape.head_dim * shape.hidden
        )
        return attention + 3 * shape.hidden * shape.intermediate + 2 * keys * shape.heads * shape.head_dim

    for i in range(shape.layers):
        tokens = text + counts[i]
        for row in range(0 if new is None else tokens - new, tokens):
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
@given(st.lists(st.integers(0, 9), min_size=3, max_size=3), st.integers(1, 9), st.integers(1, 3), st.integers(0, 5))
def test_cost(counts, text, beams, steps):
    got = cost(SHAPE, counts, text=text, beams=beams, steps=steps, element_bytes=2)
    prefill, decode, cached = counted(SHAPE, counts, text, beams, steps)
    assert (got.prefill_flops, got.decode_flops, got.kv_bytes) == (prefill, decode, 2 * cached)


@settings(deadline=None)
@given(st.integers(0, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.data())
def test_cost_of_a_question_on_a_cached_prefix(layer, text, visual, beams, steps, data):
    count = data.draw(st.integers(0, visual))
    new = data.draw(st.integers(1, text))
    counts, sizes = layer_counts(3, visual, [(layer, count)]), {"text": text, "beams": beams, "steps": steps}
    got = cost(SHAPE, counts, **sizes, element_bytes=1, new=new)
    assert (got.prefill_flops, got.decode_flops, got.kv_bytes) == counted(SHAPE, counts, **sizes, new=new)
    if count == visual:  # scene and question together are the prompt
        whole = cost(SHAPE, counts, **sizes, element_bytes=1).prefill_flops
        assert got.prefill_flops + scene_flops(SHAPE, visual + text - new) == whole


def test_vicuna_in_known_units():
    assert VICUNA.parameters == pytest.approx(6.74e9, rel=1e-2)
    full = cost(VICUNA, [300] * 32, text=80, beams=5, steps=16, element_bytes=2)
    assert full.prefill_flops == pytest.approx(2 * 6.48e9 * 380 * 1.01, rel=2e-2)


@given(st.integers(1, 60), st.integers(4, 300), st.data())
def test_ratio_is_the_share_of_layer_token_pairs_that_are_gone(layers, visual, data):
    at = sorted(data.draw(st.sets(st.integers(0, layers - 1), max_size=4)))
    kept = sorted(data.draw(st.sets(st.integers(0, visual), min_size=len(at), max_size=len(at))), reverse=True)
    at = at[: len(kept)]
    plan = Plan(visual, [Stage(*stage, torch.arange(stage[1])) for stage in zip(at, kept, strict=True)])
    counts = [min([visual, *(n for k, n in zip(at, kept, strict=True) if k <= i)]) for i in range(layers)]
    assert plan.counts(layers) == counts
    assert plan.ratio(layers) == pytest.approx(1 - sum(counts) / (visual * layers), abs=1e-12)


def test_the_ratio_of_one_stage_is_the_published_product():
    """To the last bit: results of runs are compared."""
    for layers, layer, count in ((32, 2, 15), (32, 6, 60), (32, 16, 90), (12, 1, 27), (28, 5, 16)):
        assert pruning_ratio(layers, 300, [(layer, count)]) == (1 - layer / layers) * (1 - count / 300)
    assert pruning_ratio(32, 0, [(2, 0)]) == pruning_ratio(32, 300, []) == 0


def test_units():
    assert Units(100, 3).visual == 300


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
ALL = View(torch.arange(9))


def first(count):
    """A select function."""
    return lambda view: view.offsets[:count]


@pytest.mark.parametrize(("kept", "problem"), BAD_OFFSETS)
def test_offsets_that_no_engine_can_keep(kept, problem):
    with pytest.raises(PlanError, match=problem):
        Plan(9, [Stage(1, 3, kept)])
    with pytest.raises(PlanError, match=problem):
        Plan(9, [Stage(1, 3, lambda view: kept)]).resolve(0, ALL)


@pytest.mark.parametrize(("visual", "layer", "count", "problem"), [
    (9, -1, 3, "integers from 0 on, not -1 and 3"),
    (-9, 1, 0, "an integer from 0 on, not -9"),
    (9.0, 1, 3, "an integer from 0 on, not 9.0"),
    (9, 1, -3, "integers from 0 on"),
    (9, 1.0, 3, "integers from 0 on"),
    (9, True, 3, "integers from 0 on"),
    (9, 1, 10, "keeps 10 of 9"),
])  # fmt: skip
def test_numbers_that_no_plan_has(visual, layer, count, problem):
    with pytest.raises(PlanError, match=problem):
        Plan(visual, [Stage(layer, count, first(count))])


def merge(view, kept):
    return view.hidden[kept]


@pytest.mark.parametrize(("stage", "problem"), [
    (lambda: Stage(0, 3, first(3), look=("last",)), 'cannot look at "last"; take layer 1'),
    (lambda: Stage(0, 3, first(3), look=("hidden", "text")), 'cannot look at "text"'),
    (lambda: Stage(0, 3, first(3), look=("keys",)), 'cannot look at "keys"'),
    (lambda: Stage(1, 3, first(3), look=("values",)), "last, text, keys, hidden"),
    (lambda: Stage(1, 3, first(3), look="last"), "given as a tuple, not at 'last'"),
    (lambda: Stage(1, 3, first(3), merge), '"hidden" in its `look`'),
    (lambda: Stage(1, 3, torch.arange(3), look=("last",)), "no function that could look"),
    (lambda: Stage(1, 3, torch.arange(3), every_step=True), "at every step"),
    (lambda: Stage(1, 3, first(3), look=("text",), every_step=True), "at every step"),
    (lambda: Stage(1, 3, first(3), merge, look=("last", "hidden"), every_step=True), "at every step"),
    (lambda: Stage(1, 3, None), "a tensor or a function, not NoneType"),
])  # fmt: skip
def test_stages_that_no_engine_can_carry_out(stage, problem):
    with pytest.raises(PlanError, match=problem):
        stage()


def stages(*numbers, **changes):
    return [Stage(layer, count, torch.arange(count), **changes) for layer, count in numbers]


@pytest.mark.parametrize(("stages", "problem"), [
    (stages((2, 6), (2, 3)), "ascending layers, not 2 and then 2"),
    (stages((2, 6), (1, 3)), "ascending layers, not 2 and then 1"),
    (stages((1, 3), (2, 6)), "fewer tokens than the one before, not 3 and then 6"),
    (stages((1, 6), (2, 6)), "leave out a stage that drops nothing"),
    ([*stages((1, 3)), Stage(2, 2, torch.tensor([1, 3]))], "keeps visual token 3, which a stage before it has dropped"),
    ([*stages((1, 4)), Stage(2, 3, first(3)), Stage(3, 2, torch.tensor([1, 5]))], "visual token 5, which"),
    ([Stage(1, 6, first(6), look=("last",), every_step=True), *stages((2, 3))], "only the last stage"),
    ([(1, 3)], "Stage objects, not tuple"),
])  # fmt: skip
def test_stages_that_do_not_fit_each_other(stages, problem):
    with pytest.raises(PlanError, match=problem):
        Plan(9, stages)


def test_what_functions_give_is_checked_when_it_is_known():
    plan = Plan(9, [Stage(1, 6, first(6)), Stage(2, 2, lambda view: torch.tensor([1, 8]))])
    there = plan.resolve(0, ALL)
    assert there.tolist() == list(range(6))
    with pytest.raises(PlanError, match="visual token 8, which a stage before it has dropped"):
        plan.resolve(1, View(there))
    later = Plan(9, [Stage(1, 3, lambda view: view.offsets[-3:]), Stage(2, 2, torch.tensor([0, 1]))])
    with pytest.raises(PlanError, match="visual token 0, which a stage before it has dropped"):
        later.resolve(1, View(later.resolve(0, ALL)))


@pytest.mark.parametrize("merged", [torch.zeros(2, 4), torch.zeros(3, 5), torch.zeros(3, 4, dtype=torch.int64), None])
def test_merged_states_have_the_shape_of_the_kept(merged):
    stage, view = Stage(1, 3, torch.arange(3), lambda view, kept: merged, ("hidden",)), View(ALL.offsets, hidden=ALL_4)
    with pytest.raises(PlanError, match=r"hidden states of shape \(3, 4\), not"):
        stage.merged(view, torch.arange(3))


ALL_4 = torch.zeros(9, 4)


def test_plans_that_engines_can_carry_out():
    assert issubclass(PlanError, Fast3DError)  # a line on the terminal, not a traceback
    assert Plan(9).counts(2) == [9, 9]
    assert Plan(9, stages((1, 0))).counts(3) == [9, 0, 0]
    assert Plan(9, stages((0, 9), (1, 5), (3, 1))).counts(4) == [9, 5, 5, 1]  # the first stage may keep all
    kept = torch.tensor([0, 4, 8])
    assert torch.equal(Plan(9, [Stage(2, 3, lambda view: kept)]).resolve(0, ALL), kept)
    assert Stage(1, 3, first(3), look=frozenset({"text", "last"})).look == ("last", "text")


@pytest.mark.parametrize(("sizes", "problem"), [
    ((2, 9), "from layer 2 on, the LLM has layers 0..1"),
    ((4, 8), "for 9 visual tokens, the prompt has 8"),
    ((4, 9, 0), "ends with visual tokens"),
])  # fmt: skip
def test_a_plan_fits_the_llm_and_the_prompt(sizes, problem):
    with pytest.raises(PlanError, match=problem):
        Plan(9, stages((2, 3))).check_fit(*sizes)
