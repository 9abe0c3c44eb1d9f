"""Plans of any stages through both engines, and what stages look at against stock transformers."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from fast3d_core.bench.baselines import attention_of
from fast3d_core.errors import PlanError
from fast3d_core.llm import reference
from fast3d_core.llm.engine import look, prefill, selection
from fast3d_core.llm.engine.backend import Backend
from fast3d_core.llm.engine.fast import FastEngine
from fast3d_core.llm.generation import GenerationConfig, Prompt
from fast3d_core.llm.weights import finish_layer, project
from fast3d_core.plan import Plan, Stage, View

BOS, EOS = 1, 2
LAYERS, VISUAL, HIDDEN = 5, 12, 48
SHORT = GenerationConfig(beams=1, max_new_tokens=5)
torch.manual_seed(0)


@pytest.fixture(scope="module")
def llm():
    """Small, with queries that share keys, and weights large enough that layers attend to something."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=90, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=LAYERS,
                         num_attention_heads=6, num_key_value_heads=2, initializer_range=0.2)  # fmt: skip
    return LlamaForCausalLM(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def engines(llm):
    """With padded and with packed caches, as on GPUs in half precision."""
    padded, packed = FastEngine(llm), FastEngine(llm)
    packed._padded = False
    return [padded, packed]


def prompt(length, start, seed=0):
    generator = torch.Generator().manual_seed(seed)
    embeds = torch.randn(length, HIDDEN, generator=generator)
    return Prompt(embeds, start, VISUAL, prefix=embeds[: start + VISUAL + 1].clone())


def best(count, *looks):
    """A function that keeps what scores best in all that it looks at, and in nothing else."""

    def select(view):
        parts = {
            "last": lambda: view.last,
            "text": lambda: view.text.sum(0),
            "keys": lambda: view.keys[..., 0].sum(1).sin(),
            "hidden": lambda: view.hidden[:, :7].sum(1).cos(),
        }
        assert [name for name in parts if getattr(view, name) is not None] == [n for n in parts if n in looks]
        score = sum((parts[name]() for name in looks), start=torch.zeros(len(view.offsets)))
        score = score - view.offsets * 1e-3  # without looks the first ones
        return view.offsets[score.topk(count).indices.sort().values]

    return select


def fold(view, kept):
    """Every token's state into the nearest one that is kept."""
    states = torch.nn.functional.normalize(view.hidden, dim=1)
    nearest = (states @ states[kept].T).argmax(1)
    nearest[kept] = torch.arange(len(kept))
    sums = torch.zeros(len(kept), view.hidden.shape[1]).index_add_(0, nearest, view.hidden)
    return sums / nearest.bincount(minlength=len(kept))[:, None]


@st.composite
def plans(draw, visual=VISUAL, looks=("last", "text", "keys", "hidden")):
    """0 to 3 stages, anywhere, of every kind."""
    layers = sorted(draw(st.sets(st.integers(0, LAYERS - 1), max_size=3)))
    counts = sorted(draw(st.sets(st.integers(1, visual), min_size=len(layers), max_size=len(layers))), reverse=True)
    stages, there = [], list(range(visual))
    for layer, count in zip(layers, counts, strict=True):
        merge = fold if "hidden" in looks and draw(st.booleans()) else None
        if there is not None and draw(st.booleans()):
            there = sorted(draw(st.permutations(there))[:count])
            select, look = torch.tensor(there), ("hidden",) if merge else ()
        else:
            there = None
            look = draw(st.sets(st.sampled_from(looks if layer else [n for n in looks if n == "hidden"] or [""])))
            look = tuple(name for name in look | ({"hidden"} if merge else set()) if name)
            select = best(count, *look)
        stages.append(Stage(layer, count, select, merge, look))
    return Plan(visual, stages)


def answers(engine, prompts, chosen, search, **options):
    generations = engine.generate(prompts, chosen, search, BOS, EOS, **options)
    return [(one.ids, one.steps, [(layer, kept.tolist()) for layer, kept in one.stages]) for one in generations]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), beams=st.sampled_from([1, 5]))
def test_both_engines_give_the_same(llm, engines, data, beams):
    """Ragged batches, whose samples have stages at layers of their own."""
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    prompts = [prompt(3 + VISUAL + behind, 3, seed) for seed, behind in enumerate(lengths)]
    chosen = [data.draw(plans()) for _ in prompts]
    search = replace(SHORT, beams=beams)
    want = [reference.generate(llm, *pair, search, BOS, EOS) for pair in zip(prompts, chosen, strict=True)]
    logits = torch.stack([reference.first_logits(llm, *pair) for pair in zip(prompts, chosen, strict=True)])
    told = [(one.ids, one.steps, [(layer, kept.tolist()) for layer, kept in one.stages]) for one in want]
    for engine in engines:
        state = engine.prefill(prompts, chosen, search)
        torch.testing.assert_close(state.logits, logits, rtol=0, atol=2e-5)
        for i, layout in enumerate(state.layouts):
            counts = [len(p) - VISUAL + plan.counts(LAYERS)[i] for p, plan in zip(prompts, chosen, strict=True)]
            assert layout.prompts.lengths == counts  # nothing is stored for what was dropped
    assert answers(engines[0], prompts, chosen, search) == told  # packed caches are decoded by the kernels alone


@pytest.mark.parametrize("start", [0, 3])
def test_all_visual_tokens_can_go(llm, engines, start):
    """Also where they begin the prompt, so that those that are pruned see nothing of it."""
    nothing, last = torch.tensor([], dtype=torch.int64), torch.tensor([VISUAL - 1])
    chosen = [
        Plan(VISUAL, [Stage(0, 0, nothing)]),
        Plan(VISUAL, [Stage(1, 1, last), Stage(3, 0, nothing)]),
        Plan(VISUAL, [Stage(2, 2, best(2, "last", "text"), look=("last", "text"))]),
    ]
    prompts = [prompt(start + VISUAL + behind, start, behind) for behind in (1, 4, 9)]
    pairs = list(zip(prompts, chosen, strict=True))
    logits = torch.stack([reference.first_logits(llm, *pair) for pair in pairs])
    for engine in engines:
        torch.testing.assert_close(engine.prefill(prompts, chosen, SHORT).logits, logits, rtol=0, atol=2e-5)
    want = [reference.generate(llm, *pair, SHORT, BOS, EOS).ids for pair in pairs]
    assert [one.ids for one in engines[0].generate(prompts, chosen, SHORT, BOS, EOS)] == want


@pytest.mark.parametrize("beams", [1, 5])
def test_every_layer_can_have_a_stage_of_every_kind(llm, engines, beams):
    """One after another, at K = 0, 1, ... L - 1, each sample another one."""
    kinds = [("last",), ("text",), ("keys",), ("hidden",), ("last", "text", "keys", "hidden"), ()]
    for layer in range(LAYERS):
        usable = [look for look in kinds if layer or set(look) <= {"hidden"}]
        chosen = [Plan(VISUAL, [Stage(layer, 4, best(4, *look), fold if "hidden" in look else None, look)])
                  for look in usable]  # fmt: skip
        chosen.append(Plan(VISUAL, [Stage(layer, VISUAL, torch.arange(VISUAL))]))
        prompts = [prompt(20 + 2 * i, 3, i) for i in range(len(chosen))]
        search = replace(SHORT, beams=beams)
        want = [reference.generate(llm, *pair, search, BOS, EOS) for pair in zip(prompts, chosen, strict=True)]
        got = engines[0].generate(prompts, chosen, search, BOS, EOS)
        assert [one.ids for one in got] == [one.ids for one in want]
        assert [one.kept.tolist() for one in got] == [one.kept.tolist() for one in want]


def stock(llm, rows, positions):
    """Attentions, hidden states and keys of stock transformers over these rows, eagerly."""
    mask = torch.full((len(rows), len(rows)), -torch.inf).triu(1)
    with attention_of(llm, "eager"), torch.inference_mode():
        return llm.model(inputs_embeds=rows[None], position_ids=positions[None], attention_mask=mask[None, None],
                         output_attentions=True, output_hidden_states=True, use_cache=True)  # fmt: skip


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("layer", [1, 2, LAYERS - 1])
def test_what_a_stage_sees_is_what_stock_transformers_computes(llm, engines, layer, dropped):
    prompts = [prompt(24, 3, 7), prompt(19, 5, 8), prompt(30, 1, 9)]
    kept = torch.tensor([0, 2, 3, 7, 8, 11]) if dropped else torch.arange(VISUAL)
    seen: dict[str, list[View]] = {"fast": [], "packed": [], "reference": []}

    def plan(name):
        def select(view):
            seen[name].append(view)
            return view.offsets[:4]

        stages = [Stage(0, len(kept), kept)] if dropped else []
        return Plan(VISUAL, [*stages, Stage(layer, 4, select, look=("last", "text", "keys", "hidden"))])

    for name, engine in zip(("fast", "packed"), engines, strict=True):
        engine.prefill(prompts, [plan(name)] * 3, SHORT)
    for one in prompts:
        reference.first_logits(llm, one, plan("reference"))
    for number, one in enumerate(prompts):
        start, end = one.visual_start, one.visual_start + VISUAL
        places = torch.cat([torch.arange(start), start + kept, torch.arange(end, len(one))])
        want = stock(llm, one.embeds[places], places)
        own, text = slice(start, start + len(kept)), start + len(kept)
        attention = want.attentions[layer - 1][0].mean(0)
        keys = want.past_key_values.layers[layer - 1].keys[0].transpose(0, 1)
        for views in seen.values():
            view = views[number]
            assert view.offsets.tolist() == kept.tolist()
            for got, expected in (
                (view.last, attention[-1, own]),
                (view.text, attention[text:, own]),
                (view.keys, keys[own]),
                (view.hidden, want.hidden_states[layer][0, own]),
            ):
                torch.testing.assert_close(got, expected, rtol=0, atol=2e-5)


def test_text_rows_are_the_same_in_chunks(llm, engines, monkeypatch):
    """Their weights are computed a few rows at a time where a text is long."""
    prompts, seen = [prompt(40, 3, 1)], []

    def select(view):
        seen.append(view.text)
        return view.offsets[:1]

    chosen = [Plan(VISUAL, [Stage(2, 1, select, look=("text",))])]
    engines[0].prefill(prompts, chosen, SHORT)
    monkeypatch.setattr(look, "_CHUNK_BYTES", 16 * 6 * 40 * 7)  # seven rows
    engines[0].prefill(prompts, chosen, SHORT)
    torch.testing.assert_close(*seen)
    assert seen[0].shape == (40 - 3 - VISUAL, VISUAL)


def test_no_more_is_computed_than_is_looked_at(llm, monkeypatch):
    calls = []
    for name in ("last_attention", "text_attention"):
        plain = getattr(selection, name)
        monkeypatch.setattr(selection, name, lambda *args, n=name, f=plain: (calls.append((n, args[-1])), f(*args))[1])
    prompts = [prompt(20 + i, 3, i) for i in range(4)]
    looks = [("last",), ("keys",), ("text", "last"), ()]
    chosen = [Plan(VISUAL, [Stage(1 + i % 2, 4, best(4, *look), look=look)]) for i, look in enumerate(looks)]
    FastEngine(llm).prefill(prompts, chosen, SHORT)
    told = [(n, [r.sample for r in rows] if isinstance(rows, list) else rows.sample) for n, rows in calls]
    assert told == [("last_attention", [0, 2]), ("text_attention", 2)]
    calls.clear()
    FastEngine(llm).prefill(prompts, [Plan(VISUAL, [Stage(1, 4, torch.arange(4))])] * 4, SHORT)
    assert calls == []


def test_a_stage_that_selects_at_every_step_is_held_by_the_fast_engine(llm, engines):
    """The reference engine selects again, from what beam 0's newest token looks at."""
    one, search = prompt(22, 3, 3), replace(SHORT, max_new_tokens=4, min_length=9)
    rows = []

    def select(view):
        rows.append(view.last)
        return best(3, "last")(view)

    stages = [Stage(1, 8, torch.arange(8)), Stage(3, 3, select, look=("last",), every_step=True)]
    again = reference.generate(llm, one, Plan(VISUAL, stages), search, BOS, EOS)
    assert len(rows) == len(again.kept_per_step) == 4 and all(len(row) == 8 for row in rows)
    assert again.kept_per_step[0].tolist() == again.kept.tolist() == again.stages[1][1].tolist()
    assert len({tuple(kept.tolist()) for kept in again.kept_per_step}) > 1
    once = Plan(VISUAL, [stages[0], replace(stages[1], every_step=False)])
    held = reference.generate(llm, one, once, search, BOS, EOS)
    (fast,) = engines[0].generate([one], [Plan(VISUAL, stages)], search, BOS, EOS)
    assert fast.ids == held.ids
    assert all(torch.equal(kept, held.kept) for kept in held.kept_per_step)


@torch.inference_mode()
def reused_logits(llm, prompt, plan):
    """Masks alone: rows of the prefix see all before them, those behind it what the stages keep."""
    n, shared, start = len(prompt), prompt.shared, prompt.visual_start
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    cos, sin = (table[0] for table in llm.model.rotary_emb(prompt.embeds, torch.arange(n)[None]))
    x, mask, there, number, kept, looked = prompt.embeds, causal, torch.arange(VISUAL), 0, [], {}
    for i, layer in enumerate(llm.model.layers):
        if number < len(plan.stages) and plan.stages[number].layer == i:
            look = plan.stages[number].look
            there = plan.resolve(number, View(there, **{name: looked[name] for name in look}))
            kept.append(there.tolist())
            number += 1
            mask = causal.clone()
            mask[shared:, start : start + VISUAL] = False
            mask[shared:, start + there] = True
        q, k, v = (t.transpose(0, 1) for t in project(layer, x, cos, sin))
        keys, values = (t.repeat_interleave(len(q) // len(t), 0) for t in (k, v))
        weights = (q @ keys.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf).softmax(-1)
        x = finish_layer(layer, x, (weights @ values).transpose(0, 1))
        if number < len(plan.stages):
            rows = weights.mean(0)[:, start + there]
            looked = {"last": rows[-1], "text": rows[shared:], "keys": k.transpose(0, 1)[start + there]}
    return llm.lm_head(llm.model.norm(x[-1])), kept


@settings(max_examples=30, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_cached_prefix_means_what_it_says(llm, engines, data):
    """The same selections and answers as by masks; of a prefix that is new, and of one that is cached."""
    first = prompt(3 + VISUAL + 9, 3, 1)
    prompts = []
    for seed, behind in enumerate(data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=4))):
        question = torch.randn(behind, HIDDEN, generator=torch.Generator().manual_seed(50 + seed))
        prompts.append(replace(first, embeds=torch.cat([first.prefix, question])))
    chosen = [data.draw(plans(looks=("last", "text", "keys"))) for _ in prompts]
    want = [reused_logits(llm, *pair) for pair in zip(prompts, chosen, strict=True)]
    for engine in engines:
        for _ in range(2):
            state = engine.prefill(prompts, chosen, SHORT, reuse_prefix=True)
            torch.testing.assert_close(state.logits, torch.stack([logits for logits, _ in want]), rtol=0, atol=2e-5)
            assert [[kept.tolist() for kept in own] for own in state.kept] == [kept for _, kept in want]
    unpruned = [Plan(VISUAL, [Stage(2, VISUAL, best(VISUAL, "last"), look=("last",))])] * len(prompts)
    whole = answers(engines[0], prompts, unpruned, SHORT)
    assert answers(engines[0], prompts, unpruned, SHORT, reuse_prefix=True) == whole


def test_what_a_cached_prefix_cannot_give_is_refused(engines):
    one = prompt(24, 3)
    for wanted, merge in ((("hidden",), None), (("last", "hidden"), fold)):
        plan = Plan(VISUAL, [Stage(2, 3, best(3, *wanted), merge, wanted)])
        with pytest.raises(PlanError, match="the prefix cache holds no hidden states.*; turn reuse off"):
            engines[0].prefill([one], [plan], SHORT, reuse_prefix=True)
    for prefix in (None, one.embeds[: 3 + VISUAL - 1].clone()):
        with pytest.raises(PlanError, match="does not reach to the end of the visual tokens"):
            engines[0].prefill([replace(one, prefix=prefix)], [Plan(VISUAL)], SHORT, reuse_prefix=True)


@pytest.mark.parametrize("answer", [
    lambda llm, engine, prompt, plan: engine.generate([prompt], [plan], SHORT, BOS, EOS),
    lambda llm, engine, prompt, plan: reference.generate(llm, prompt, plan, SHORT, BOS, EOS),
], ids=["fast", "reference"])  # fmt: skip
def test_functions_that_give_something_else_are_refused(llm, engines, answer):
    """By both engines, when they are called."""
    one = prompt(24, 3)
    first = Stage(1, 6, best(6, "last"), look=("last",))
    for stages, problem in (
        ([first, Stage(2, 2, lambda view: torch.tensor([0, 11 if 11 not in view.offsets else 1]))], "has dropped"),
        ([first, Stage(2, 2, lambda view: view.offsets[:3])], r"2 numbers of torch.int64, not .*\(3,\)"),
        ([Stage(1, 3, lambda view: view.offsets[-3:]), Stage(2, 2, torch.arange(2))], "token 0, which .* has dropped"),
        ([replace(first, select=lambda view: view.offsets[-6:]), Stage(2, 2, torch.arange(2))], "token 0, which"),
        ([first, Stage(2, 2, lambda view: view.offsets[:2].flip(0))], "ascend"),
        ([Stage(1, 2, lambda view: torch.tensor([1, VISUAL]))], f"at most {VISUAL - 1}"),
        ([Stage(1, 2, torch.arange(2), lambda view, kept: view.hidden, ("hidden",))], r"of shape \(2, 48\), not"),
    ):
        with pytest.raises(PlanError, match=problem):
            answer(llm, engines[0], one, Plan(VISUAL, stages))
    with pytest.raises(PlanError, match="the prompt ends with visual tokens"):
        answer(llm, engines[0], replace(one, embeds=one.embeds[: 3 + VISUAL]), Plan(VISUAL, [first]))


class Varlen(Backend):
    """Attention over packed rows that asks for no lengths on the host, as flash attention does."""

    def __init__(self):
        super().__init__("varlen")

    def prefill_attention(self, q, keys, values, queries, layout):
        out = torch.zeros_like(q)
        spans = zip(*(one.cu_seqlens.tolist() for one in (queries, layout.prompts)), strict=True)
        for (first, begin), (behind, end) in pairwise(spans):
            k, v = (part[begin:end].repeat_interleave(q.shape[1] // keys.shape[1], 1) for part in (keys, values))
            rows = torch.arange(end - begin - (behind - first), end - begin)[:, None]
            mask = torch.arange(end - begin) <= rows
            args = (part.transpose(0, 1) for part in (q[first:behind], k, v))
            own = torch.nn.functional.scaled_dot_product_attention(*args, mask)
            out[first:behind] = own.transpose(0, 1)
        return out


class Graph:
    """What CUDA's does: nothing when it is captured, then the same work on what the same tensors hold."""

    def __init__(self, work):
        self.work, self.logits = work, torch.zeros(2, 90)

    def replay(self):
        self.logits.copy_(self.work())


@pytest.mark.parametrize("reuse", [False, True])
def test_captured_passes_serve_plans_of_the_same_boundaries(llm, monkeypatch, reuse):
    """On a CPU, with work that is done again in place of a graph: padding and old content must not matter."""
    recorded = []

    def captured(work, pool):
        recorded.append(Graph(work))
        return recorded[-1], recorded[-1].logits

    monkeypatch.setattr(prefill, "captured", captured)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    plain, capturing = FastEngine(llm, Varlen()), FastEngine(llm, Varlen())
    monkeypatch.setattr(capturing._backend, "captures", True)
    capturing.release()

    def batch(seed, *layers):
        numbers = torch.Generator().manual_seed(seed)
        prompts = [prompt(3 + VISUAL + 4 + i + seed % 3, 3, seed + i) for i in range(2)]
        kept = [torch.randperm(VISUAL, generator=numbers)[:9].sort().values for _ in prompts]
        own = [[(layer, mine[: 9 - 2 * i]) for i, layer in enumerate(layers)] for mine in kept]
        return prompts, [Plan(VISUAL, [Stage(k, len(some), some) for k, some in one]) for one in own]

    kinds = ((), (0,), (2,), (0, 1, 3), (2,), (1, 4))
    for turn in range(3):
        for number, layers in enumerate(kinds):
            prompts, chosen = batch(7 * number + turn, *layers)
            got, want = (one.prefill(prompts, chosen, SHORT, reuse) for one in (capturing, plain))
            torch.testing.assert_close(got.logits, want.logits, rtol=0, atol=1e-5)
    assert len(recorded) >= 4  # plans that drop nothing, or at layer 0 alone, share one
    looking = Plan(VISUAL, [Stage(2, 4, best(4, "last"), look=("last",))])
    before = len(recorded)
    for _ in range(3):
        got, want = (one.prefill(prompts, [looking] * 2, SHORT, reuse) for one in (capturing, plain))
        torch.testing.assert_close(got.logits, want.logits, rtol=0, atol=1e-5)
    assert len(recorded) == before
