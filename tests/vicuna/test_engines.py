"""The fast engine against the reference engine, where nothing was recorded; and that it really drops tokens."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from fast3d_core.plan import cost
from fast3d_core.pruning import FastV, Gap, Random, Sap, Vanilla
from fast3d_core.vicuna import fast
from fast3d_core.vicuna.beam import BeamSearch, GreedySearch
from fast3d_core.vicuna.llm import Prompt

BOS, EOS = 1, 2
LAYERS = 4


def ragged(fixture, indices):
    """Prompts of very different lengths: the question of every other sample cut in half."""
    prompts = []
    for i in indices:
        p = fixture.prompts[i]
        cut = (len(p) + p.visual_start + p.visual) // 2 if i % 2 else len(p)
        prompts.append(Prompt(p.embeds[:cut], p.visual_start, p.visual))
    assert len({len(p) for p in prompts}) > len(prompts) // 2
    return prompts


PRUNERS = [
    Vanilla(),
    *(Random(layer=k, keep=n, seed=3) for k, n in [(0, 30), (1, 9), (2, 45), (LAYERS - 1, 3)]),
    *(Gap(layer=k, keep=n) for k, n in [(0, 15), (1, 60), (2, 16), (LAYERS - 1, 1)]),
    Sap(alpha=0.02),
    Sap(alpha=0.35),
    Sap(alpha=1.0),
]


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("pruner", PRUNERS, ids=repr)
def test_fast_equals_reference(fixture, pruner, beams):
    indices = [0, 3, 4, 7, 9, 13]
    prompts = ragged(fixture, indices)
    all_plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)
    plans = [all_plans[i] for i in indices]
    settings = replace(fixture.config.generation, beams=beams, max_new_tokens=8)
    want = fixture.model.generate(prompts, plans, settings, engine="reference")
    got = fixture.model.generate(prompts, plans, settings, engine="fast")
    for a, b in zip(got, want, strict=True):
        assert a.generation.ids == b.generation.ids
        assert a.generation.steps == b.generation.steps
        assert a.generation.kept.tolist() == b.generation.kept.tolist()
        assert a.text == b.text


@pytest.mark.parametrize(
    "change",
    [{"min_length": 6}, {"length_penalty": 0.0}, {"length_penalty": -1.5}, {"length_penalty": 2.0},
     {"repetition_penalty": 1.0}, {"repetition_penalty": 0.5}, {"max_new_tokens": 1}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("beams", [1, 5])
def test_generation_settings(fixture, change, beams):
    plans = fixture.plans(Gap(layer=1, keep=30), fixture.config.maps.predicted)[:5]
    settings = replace(fixture.config.generation, **{"beams": beams, "max_new_tokens": 7} | change)
    want = fixture.model.generate(fixture.prompts[:5], plans, settings, engine="reference")
    got = fixture.model.generate(fixture.prompts[:5], plans, settings, engine="fast")
    assert [a.generation.ids for a in got] == [a.generation.ids for a in want]


@pytest.mark.parametrize("pruner", [*PRUNERS, FastV(layer=1, keep=6), FastV(layer=3, keep=30)], ids=repr)
def test_nothing_of_unpruned_length_from_layer_k_on(fixture, pruner):
    """Every activation and every cached key of layers >= K has exactly the kept tokens' and the text's length."""
    plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)
    seen: dict[int, list[int]] = {i: [] for i in range(LAYERS)}

    def watch(i):
        return lambda module, args: seen[i].extend(a.shape[0] for a in args if isinstance(a, torch.Tensor))

    hooks = [
        part.register_forward_pre_hook(watch(i))
        for i, layer in enumerate(fixture.model.llm.model.layers)
        for part in layer.modules()
    ]
    try:
        state = fast.prefill(fixture.model.llm, fixture.prompts, plans)
    finally:
        for hook in hooks:
            hook.remove()
    full = [len(p) for p in fixture.prompts]
    short = [len(p) - p.visual + plan.count for p, plan in zip(fixture.prompts, plans, strict=True)]
    for i in range(LAYERS):
        lengths = short if i >= plans[0].layer else full
        assert seen[i]
        assert set(seen[i]) <= {sum(lengths), len(lengths)}  # all rows, or the last row of each sample
        assert state.caches[i].keys.shape[1] == max(lengths)
        assert state.caches[i].valid.sum(dim=1).tolist() == lengths


def test_beams_share_the_prompt_cache(fixture):
    """The cache of the prompt is stored once per sample, whatever the number of beams."""
    state = fast.prefill(fixture.model.llm, fixture.prompts[:3], fixture.plans(Vanilla())[:3], room=20)
    longest = max(len(prompt) for prompt in fixture.prompts[:3])
    assert all(cache.keys.shape[:2] == cache.values.shape[:2] == (3, longest + 20) for cache in state.caches)


@pytest.mark.parametrize("pruner", [Vanilla(), Gap(layer=2, keep=15), Sap(alpha=0.21)], ids=repr)
def test_flops_are_those_that_torch_counts(fixture, pruner):
    """`plan.cost` against torch's own counter over a real prefill of one sample.

    The counter sees matrix products only. It counts attention without the causal half, so that part is taken out of
    both: what is left are projections, MLP and lm_head. The last layer computes more than its one scored row needs only
    in keys and values; `cost` charges the full layer: it is the cost of the model, not of this shortcut.
    """
    plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)
    prompt, plan = fixture.prompts[0], plans[0]
    shape = fixture.model.shape
    with FlopCounterMode(display=False) as counter:
        fast.prefill(fixture.model.llm, [prompt], [plan])
    counted = sum(
        n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op) and "bmm" not in str(op)
    )
    text = len(prompt) - prompt.visual
    last = text + plan.count
    whole = cost(shape, layer=plan.layer, text=text, visual=300, count=plan.count, beams=5, steps=1, element_bytes=4)
    tokens = [text + (300 if i < plan.layer else plan.count) for i in range(shape.layers)]
    attention = sum(4 * shape.heads * shape.head_dim * n * (n + 1) // 2 for n in tokens)
    skipped = 2 * (last - 1) * (shape.layer_macs - 3 * shape.hidden * shape.heads * shape.head_dim)
    assert whole.prefill_flops - attention - skipped == counted


@pytest.mark.parametrize("beams", [1, 5])
def test_a_step_may_read_further_than_there_are_tokens(fixture, beams):
    """As one captured as a CUDA graph does, whose shapes are those of a later step."""
    settings = replace(fixture.config.generation, beams=beams, max_new_tokens=7)
    plans = fixture.plans(Gap(layer=1, keep=30), fixture.config.maps.predicted)[:5]
    llm, prompts = fixture.model.llm, fixture.prompts[:5]
    want = fast.generate(llm, prompts, plans, settings, 1, 2)
    with torch.inference_mode():
        state = fast.prefill(llm, prompts, plans, room=beams * 6)
        kind = GreedySearch if beams == 1 else BeamSearch
        search = kind(5, settings, 1, 2, state.logits.device)
        decoding = fast.Decoding(llm, state, search)
        while not search.finished:
            decoding.step(6)
        assert [ids for ids, _ in search.best()] == [one.ids for one in want]
