"""The fast engine against the reference engine, where nothing was recorded; and that it really drops tokens."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from fast3d_core.config import GenerationConfig
from fast3d_core.errors import NotFiniteError, UsageError
from fast3d_core.llm import reference
from fast3d_core.llm.cost import cost
from fast3d_core.llm.engine import prefix_cache
from fast3d_core.llm.engine.beam import BeamSearch, GreedySearch
from fast3d_core.llm.engine.cache import Caches
from fast3d_core.llm.engine.decode import Decoder
from fast3d_core.llm.engine.fast import FastEngine
from fast3d_core.llm.engine.layers import Head, Layer
from fast3d_core.llm.engine.prefix_cache import PrefixCache
from fast3d_core.llm.generation import Prompt, not_finite
from fast3d_core.llm.weights import finish_layer, project
from fast3d_core.plan import Plan, PlanError, Stage
from fast3d_core.pruning import FastV, Gap, Sap, Vanilla
from tests.pruning.default_methods import ALL, SAME_IN_BOTH_ENGINES

BOS, EOS = 1, 2
LAYERS = 4
_SHORT = GenerationConfig(max_new_tokens=6)


def ragged(fixture, indices):
    """Prompts of very different lengths: the question of every other sample cut in half."""
    prompts = []
    for i in indices:
        p = fixture.prompts[i]
        cut = (len(p) + p.visual_start + p.visual) // 2 if i % 2 else len(p)
        prompts.append(Prompt(p.embeds[:cut], p.visual_start, p.visual))
    assert len({len(p) for p in prompts}) > len(prompts) // 2
    return prompts


@pytest.mark.parametrize("beams", [1, 2, 5])
@pytest.mark.parametrize("pruner", SAME_IN_BOTH_ENGINES, ids=repr)
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


@pytest.mark.parametrize("pruner", ALL, ids=repr)
def test_nothing_of_unpruned_length_from_layer_k_on(fixture, pruner):
    """Every activation and every cached key of layers >= K has exactly the kept tokens' and the text's length."""
    plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)
    seen: list[list[int]] = []

    class Watched(Layer):
        def queries(self, x, *others):
            seen.append([len(x)])
            return super().queries(x, *others)

        def finish(self, x, attended):
            seen[-1] += [len(x), len(attended)]
            return super().finish(x, attended)

    engine = FastEngine(fixture.model.llm)
    engine.layers = [Watched(**vars(layer)) for layer in engine.layers]
    engine.release()
    state = engine.prefill(fixture.prompts, plans, fixture.config.generation)
    full = [len(p) for p in fixture.prompts]
    counts = [plan.counts(LAYERS) for plan in plans]
    for i in range(LAYERS):
        lengths = [n - 300 + count[i] for n, count in zip(full, counts, strict=True)]
        behind = len(lengths) if i == LAYERS - 1 else sum(lengths)  # the last layer ends with the last rows
        assert seen[i] == [sum(lengths), behind, behind]
        assert state.layouts[i].prompts.lengths == lengths


def test_beams_share_the_prompt_cache(fixture):
    """The cache of the prompt is stored once per sample, whatever the number of beams."""
    rows = []
    for beams in (1, 5):
        settings = replace(fixture.config.generation, beams=beams, max_new_tokens=5)
        state = fixture.model.engine.prefill(fixture.prompts[:3], fixture.plans(Vanilla())[:3], settings)
        rows.append([layout.rows - 3 * beams * 4 for layout in state.layouts])
    longest = max(len(prompt) for prompt in fixture.prompts[:3])
    assert rows == [[3 * longest] * LAYERS] * 2


def _addmm_flops(_self, a_shape, b_shape, out_shape=None, **_):
    return 2 * a_shape[0] * a_shape[1] * b_shape[1]


@pytest.mark.parametrize("pruner", [Vanilla(), Gap(layer=2, keep=15), Sap(alpha=0.21)], ids=repr)
def test_flops_are_those_that_torch_counts(fixture, pruner):
    """`plan.cost` against torch's own counter over a real prefill of one sample.

    The counter sees matrix products only. It counts attention without the causal half, so that part is taken out of
    both: what is left are projections, MLP and lm_head. The last layer computes more than its one scored row needs only
    in keys and values; `cost` charges the full layer: it is the cost of the model, not of this shortcut. The head's
    rows that fill its last tile are not the model's, either.
    """
    plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)
    prompt, plan = fixture.prompts[0], plans[0]
    shape = fixture.model.shape
    in_place = {torch.ops.aten.addmm_: _addmm_flops}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        fixture.model.engine.prefill([prompt], [plan], fixture.config.generation)
    counted = sum(
        n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op) and "bmm" not in str(op)
    )
    text = len(prompt) - prompt.visual
    counts = plan.counts(shape.layers)
    last = text + counts[-1]
    whole = cost(shape, counts, text=text, beams=5, steps=1, element_bytes=4)
    tokens = [text + count for count in counts]
    attention = sum(4 * shape.heads * shape.head_dim * n * (n + 1) // 2 for n in tokens)
    skipped = 2 * (last - 1) * (shape.layer_macs - 3 * shape.hidden * shape.heads * shape.head_dim)
    filled = 2 * shape.hidden * (-shape.vocab % 64)
    assert whole.prefill_flops - attention - skipped + filled == counted


@pytest.mark.parametrize("beams", [1, 5])
def test_a_step_may_read_further_than_there_are_tokens(fixture, monkeypatch, beams):
    """As one captured as a CUDA graph does, whose shapes are those of the last step."""
    settings = replace(fixture.config.generation, beams=beams, max_new_tokens=7)
    plans = fixture.plans(Gap(layer=1, keep=30), fixture.config.maps.predicted)[:5]
    engine, prompts = fixture.model.engine, fixture.prompts[:5]
    want = engine.generate(prompts, plans, settings, BOS, EOS)
    step = Decoder.step
    monkeypatch.setattr(Decoder, "step", lambda self, most: step(self, 6))
    got = engine.generate(prompts, plans, settings, BOS, EOS)
    assert [one.ids for one in got] == [one.ids for one in want]


def test_steps_beyond_the_end_change_nothing(fixture, monkeypatch):
    """On a GPU some are made before it is known that all samples are done."""
    settings = replace(fixture.config.generation, max_new_tokens=40, repetition_penalty=1.0, length_penalty=-3.0)
    plans = fixture.plans(Sap(alpha=0.21), fixture.config.maps.predicted)
    engine, prompts = fixture.model.engine, fixture.prompts
    want = engine.generate(prompts, plans, settings, BOS, EOS)
    assert max(one.steps for one in want) < 40
    monkeypatch.setattr(BeamSearch, "finished", False)
    got = engine.generate(prompts, plans, settings, BOS, EOS)
    assert [(one.ids, one.score, one.steps) for one in got] == [(one.ids, one.score, one.steps) for one in want]


@pytest.mark.parametrize("reuse_prefix", [False, True])
def test_an_engine_that_was_released_starts_again(fixture, reuse_prefix):
    plans, settings = fixture.plans(Vanilla())[:2], replace(fixture.config.generation, max_new_tokens=4)
    engine = FastEngine(fixture.model.llm)

    def answers():
        generated = engine.generate(fixture.prompts[:2], plans, settings, BOS, EOS, reuse_prefix)
        return [(one.ids, one.score) for one in generated]

    def held():
        return sum(buffer.numel() for buffers in engine._caches.both for buffer in buffers)

    first = answers()
    assert held() > 0
    engine.release()
    assert held() == 0 and not len(engine._prefixes) and not engine._decoders
    assert answers() == first


def test_batches_do_not_depend_on_what_was_before(fixture):
    """Buffers are kept from batch to batch; what another batch left in them must not matter."""
    settings = replace(fixture.config.generation, max_new_tokens=6)
    llm = fixture.model.llm
    engine, fresh = FastEngine(llm), lambda: FastEngine(llm)
    batches = [
        (Gap(layer=2, keep=15), slice(0, 4)), (Vanilla(), slice(4, 12)), (FastV(layer=1, keep=6), slice(0, 4)),
        (Sap(alpha=0.02), slice(2, 6)), (Vanilla(), slice(0, 4)),
    ]  # fmt: skip
    for pruner, part in batches:
        plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)[part]
        got, want = (one.generate(fixture.prompts[part], plans, settings, BOS, EOS) for one in (engine, fresh()))
        assert [(a.ids, a.score) for a in got] == [(a.ids, a.score) for a in want]


@pytest.mark.parametrize(
    "pruner", [Vanilla(), FastV(layer=1, keep=300), Gap(layer=2, keep=300), Sap(alpha=1.0)], ids=repr
)
def test_a_reused_scene_changes_nothing_where_nothing_is_pruned(fixture, pruner):
    indices = [0, 3, 4, 7, 9, 13, 1]  # of three scenes, mixed
    plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)
    prompts, plans = [fixture.prompts[i] for i in indices], [plans[i] for i in indices]
    settings = replace(fixture.config.generation, max_new_tokens=6)
    engine = FastEngine(fixture.model.llm)
    want = engine.generate(prompts, plans, settings, BOS, EOS)
    for _ in range(2):  # the second time scenes are known
        got = engine.generate(prompts, plans, settings, BOS, EOS, reuse_prefix=True)
        assert [one.ids for one in got] == [one.ids for one in want]


@pytest.mark.parametrize("pruner", [Gap(layer=0, keep=15), Gap(layer=2, keep=45), Sap(alpha=0.3)], ids=repr)
def test_a_reused_scene_means_what_it_says(fixture, pruner):
    """Kept tokens have seen the pruned ones, the question sees the kept ones: the reference engine's masks, with the
    scene's own rows left causal."""
    plans = fixture.plans(pruner, fixture.config.maps.predicted)
    indices = [0, 4, 9]
    prompts, plans = [fixture.prompts[i] for i in indices], [plans[i] for i in indices]
    got = FastEngine(fixture.model.llm).prefill(prompts, plans, fixture.config.generation, reuse_prefix=True).logits
    published = fixture.model.engine.prefill(prompts, plans, fixture.config.generation).logits
    for i, (prompt, plan) in enumerate(zip(prompts, plans, strict=True)):
        want = _masked_logits(fixture.model.llm, prompt, plan)
        torch.testing.assert_close(got[i], want, rtol=0, atol=1e-4)
        assert (published[i] - want).abs().max() > 1e-3  # and that is another computation than the published one


def test_few_prefixes_are_kept(fixture, monkeypatch):
    """The one used longest ago is evicted; for a batch about more of them the cache grows."""
    monkeypatch.setattr(prefix_cache, "PREFIXES_KEPT", 2)
    engine = FastEngine(fixture.model.llm)
    plans = fixture.plans(Gap(layer=1, keep=45), fixture.config.maps.predicted)
    a, b, c = {id(p.prefix): i for i, p in enumerate(fixture.prompts)}.values()
    for batch, kept in (([a], [a]), ([b, a], [b, a]), ([c, a], [a, c]), ([a, b, c], [a, b, c]), ([b], [a, c, b])):
        prompts, chosen = [fixture.prompts[i] for i in batch], [plans[i] for i in batch]
        fresh = FastEngine(fixture.model.llm)
        got, want = (one.generate(prompts, chosen, _SHORT, BOS, EOS, reuse_prefix=True) for one in (engine, fresh))
        assert [one.ids for one in got] == [one.ids for one in want]
        assert len(engine._prefixes) == len(kept)
        assert all(fixture.prompts[i].prefix in engine._prefixes for i in kept)


def test_running_out_of_memory_leaves_the_engine_usable(fixture, monkeypatch):
    engine = FastEngine(fixture.model.llm)
    plans = fixture.plans(Vanilla())
    engine.generate(fixture.prompts[:2], plans[:2], _SHORT, BOS, EOS)
    want = [one.ids for one in engine.generate(fixture.prompts[:3], plans[:3], _SHORT, BOS, EOS)]
    make, calls = torch.Tensor.new_zeros, []

    def fails(tensor, *size):
        calls.append(size)
        if len(calls) > 2 * LAYERS + 3 and size[0]:  # some buffers are made, some are not
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make(tensor, *size)

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "new_zeros", fails)
        with pytest.raises(torch.OutOfMemoryError):
            engine.generate(fixture.prompts, plans, _SHORT, BOS, EOS)
    got = [one.ids for one in engine.generate(fixture.prompts[:3], plans[:3], _SHORT, BOS, EOS)]
    assert got == want


@pytest.mark.parametrize("beams", [1, 5])
def test_numbers_that_are_not_finite_do_not_outlive_their_batch(fixture, beams):
    engine, plans, settings = FastEngine(fixture.model.llm), fixture.plans(Vanilla())[:4], replace(_SHORT, beams=beams)
    prompts = ragged(fixture, range(4))
    want = [one.ids for one in engine.generate(prompts, plans, settings, BOS, EOS)]
    longest = max(prompts, key=len)
    broken = [replace(longest, embeds=longest.embeds * torch.nan)] * 4
    with pytest.raises(NotFiniteError):
        engine.generate(broken, plans, settings, BOS, EOS)
    got = [one.ids for one in engine.generate(prompts, plans, settings, BOS, EOS)]
    assert got == want


@pytest.mark.parametrize("beams", [1, 5])
def test_a_broken_scene_that_is_reused_spoils_no_other(fixture, beams):
    plans, settings = fixture.plans(Gap(1, 15), fixture.config.maps.predicted), replace(_SHORT, beams=beams)
    a, b, c = {id(p.prefix): i for i, p in enumerate(fixture.prompts)}.values()
    broken = fixture.prompts[c].prefix * torch.nan
    embeds = torch.cat([broken, fixture.prompts[c].embeds[len(broken) :]])
    prompts = [fixture.prompts[a], fixture.prompts[b], replace(fixture.prompts[c], embeds=embeds, prefix=broken)]
    chosen, engine = [plans[i] for i in (a, b, c)], FastEngine(fixture.model.llm)
    want = engine.generate(prompts[:2], chosen[:2], settings, BOS, EOS, reuse_prefix=True)
    spoilt = FastEngine(fixture.model.llm)
    state = spoilt.prefill(prompts, chosen, settings, reuse_prefix=True)
    assert state.logits.isfinite().all(-1).tolist() == [True, True, False]
    with pytest.raises(NotFiniteError):
        spoilt.decode(state, BOS, EOS)
    got = spoilt.generate(prompts[:2], chosen[:2], settings, BOS, EOS, reuse_prefix=True)
    assert [one.ids for one in got] == [one.ids for one in want]


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_logits_that_are_not_finite_are_refused(fixture, monkeypatch, step, beams, number):
    """By both engines, whatever step they are of."""
    settings = replace(_SHORT, beams=beams, min_length=7)  # nothing ends before the last token
    plans, prompts = fixture.plans(Gap(1, 15), fixture.config.maps.predicted)[:3], fixture.prompts[:3]
    llm, calls = fixture.model.llm, []

    def spoilt(logits):
        calls.append(len(logits))
        logits = logits.clone()
        if len(calls) == step:
            logits[-1, 17] = number
        return logits

    class Spoilt(Head):
        def logits(self, x):
            return spoilt(super().logits(x))

    engine = FastEngine(llm)
    engine._head = Spoilt(**vars(engine._head))
    engine.release()
    with pytest.raises(NotFiniteError, match=r"the LLM computes NaN or infinity in float32; `fast3d doctor --deep`"):
        engine.generate(prompts, plans, settings, BOS, EOS)
    engine.generate(prompts, plans, settings, BOS, EOS)  # the calls go on being counted: no number is spoilt any more
    calls.clear()
    plain = llm.lm_head.forward
    with monkeypatch.context() as patch, pytest.raises(NotFiniteError, match="float32"):
        patch.setattr(llm.lm_head, "forward", lambda x: spoilt(plain(x)))
        reference.generate(llm, prompts[0], plans[0], settings, BOS, EOS)
    assert len(calls) == step


def test_a_sample_that_is_done_may_hold_anything():
    """On a GPU its rows go on being computed, from what nobody keeps up."""
    search = GreedySearch(2, replace(_SHORT, beams=1), BOS, EOS, torch.device("cpu"))
    ends, broken = torch.zeros(1, 9), torch.full((1, 9), torch.nan)
    ends[0, EOS] = 99.0
    going_on = torch.arange(9.0)[None]
    search.advance(torch.stack([ends, going_on]))
    search.advance(torch.stack([broken, going_on]))
    assert search.finite.all()
    search.advance(torch.stack([broken, broken]))
    assert search.finite.tolist() == [True, False]
    search.reset()
    assert search.finite.all()


def test_advice_names_another_number_type():
    assert "model.dtype=bfloat16 or float32" in str(not_finite(torch.float16))
    assert "model.dtype" not in str(not_finite(torch.float32))


@pytest.mark.parametrize("answer", [
    lambda llm, prompt, plan, beams: FastEngine(llm).generate([prompt], [plan], replace(_SHORT, beams=beams), BOS, EOS),
    lambda llm, *rest: reference.generate(llm, *rest[:2], replace(_SHORT, beams=rest[2]), BOS, EOS),
], ids=["fast", "reference"])  # fmt: skip
def test_what_an_engine_cannot_carry_out_is_refused(fixture, answer):
    llm, prompt = fixture.model.llm, fixture.prompts[0]
    for plan, problem in (
        (Plan(297, [Stage(1, 3, torch.arange(3))]), "for 297 visual tokens, the prompt has 300"),
        (Plan(300, [Stage(LAYERS, 3, torch.arange(3))]), "from layer 4 on, the LLM has layers 0..3"),
        (Plan(300, [Stage(1, 3, lambda view: torch.tensor([3, 1, 2]))]), "ascend"),
        (Plan(300, [Stage(1, 3, lambda view: torch.tensor([1, 2]))]), r"3 numbers of torch.int64, not .*\(2,\)"),
    ):
        with pytest.raises(PlanError, match=problem):
            answer(llm, prompt, plan, 2)
    plan, vocab = Plan(300, [Stage(1, 3, torch.arange(3))]), llm.config.vocab_size
    with pytest.raises(UsageError, match=f"take at most {vocab // 2}"):
        answer(llm, prompt, plan, vocab // 2 + 1)


def test_scenes_of_different_lengths_share_a_store(fixture):
    """Slots are as long as the longest; what outgrows them makes new ones, and so does one scene more than fits."""
    caches = [Caches(2, 2, 4, torch.float32, torch.device("cpu")) for _ in range(2)]
    store, read = PrefixCache(caches[0]), caches[1]
    read.fit([40, 40])
    prefixes = [torch.zeros(length, 1) for length in (20, 30, 25, *range(10, 20))]

    def ask(prefixes):
        replaced = store.fit(prefixes)
        for prefix in prefixes:
            if prefix not in store:
                for buffer in (*read.keys, *read.values):
                    buffer.copy_(torch.arange(len(buffer))[:, None, None] + id(prefix) % 1000)
                store.keep(prefix, read)
        for prefix in prefixes:
            first = store.first_row(prefix)
            for buffer in (*store.caches.keys, *store.caches.values):
                rows = buffer[first : first + len(prefix), 0, 0]
                assert torch.equal(rows, torch.arange(len(prefix)) + float(id(prefix) % 1000))
        return replaced

    assert ask(prefixes[:1]) and ask(prefixes[1:3]) and not ask([prefixes[0], prefixes[2]])
    assert not ask(prefixes[3:9]) and prefixes[0] in store  # nine: buffers grow beyond eight slots
    assert ask(prefixes) and len(store) == len(prefixes)
    assert not ask(prefixes[:4]) and len(store) == len(prefixes)


@pytest.mark.parametrize("reuse_prefix", [False, True])
@pytest.mark.parametrize("pruner", [Vanilla(), Gap(2, 15), FastV(1, 30), Sap(0.35)], ids=repr)
def test_packed_caches_hold_the_same(fixture, pruner, reuse_prefix):
    """As they do on GPUs in half precision."""
    plans = fixture.plans(pruner, fixture.config.maps.predicted if pruner.needs_map else None)[3:9]
    prompts = fixture.prompts[3:9]
    padded, packed = FastEngine(fixture.model.llm), FastEngine(fixture.model.llm)
    packed._padded = False
    want, got = (one.prefill(prompts, plans, _SHORT, reuse_prefix) for one in (padded, packed))
    torch.testing.assert_close(got.logits, want.logits, rtol=0, atol=1e-5)
    for i in range(LAYERS):
        lengths = want.layouts[i].prompts.lengths
        rows = [one.layouts[i].slot_mapping([0] * 6, lengths) for one in (want, got)]
        a, b = (one._caches.keys[i][own] for one, own in zip((padded, packed), rows, strict=True))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_grouped_queries(beams):
    """A LLaMA whose queries share keys, as none of the released ones has."""
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=90, hidden_size=48, intermediate_size=64, num_hidden_layers=3,
                         num_attention_heads=6, num_key_value_heads=2)  # fmt: skip
    llm = LlamaForCausalLM(config).eval().requires_grad_(False)
    prompts = [Prompt(torch.randn(20 + 3 * i, 48), visual_start=4, visual=9) for i in range(3)]
    plans = [Plan(9, [Stage(1, 2, torch.tensor([i, i + 3]))]) for i in range(3)]
    settings = GenerationConfig(beams=beams, max_new_tokens=6)
    got = FastEngine(llm).generate(prompts, plans, settings, BOS, EOS)
    want = [reference.generate(llm, *pair, settings, BOS, EOS) for pair in zip(prompts, plans, strict=True)]
    assert [one.ids for one in got] == [one.ids for one in want]


@torch.inference_mode()
def _masked_logits(llm, prompt, plan):
    n, shared = len(prompt), prompt.shared
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    hidden = torch.ones(n, dtype=torch.bool)
    (stage,) = plan.stages
    hidden[prompt.visual_start + stage.select] = False
    hidden[: prompt.visual_start] = False
    hidden[prompt.visual_start + prompt.visual :] = False
    pruned = causal.clone()
    pruned[shared:] &= ~hidden
    cos, sin = (table[0] for table in llm.model.rotary_emb(prompt.embeds, torch.arange(n)[None]))
    x = prompt.embeds
    for i, layer in enumerate(llm.model.layers):
        q, k, v = (t.transpose(0, 1) for t in project(layer, x, cos, sin))
        mask = pruned if i >= stage.layer else causal
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)
        x = finish_layer(layer, x, attended.transpose(0, 1))
    return llm.lm_head(llm.model.norm(x[-1]))
