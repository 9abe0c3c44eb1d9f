"""Packed attention against the obvious loop, and the flash-attn adapter against a stand-in."""

import inspect
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.engine import attention, flash
from fast3d_core.llm.engine.attention import beam_attention, padded_attention, row_weights
from fast3d_core.llm.engine.backend import Backend, choose
from fast3d_core.llm.engine.cache import Layout
from fast3d_core.llm.engine.decode import BeamAncestry
from fast3d_core.llm.engine.packing import Packing

CPU = torch.device("cpu")
SHAPE = LlmShape(layers=1, hidden=32, heads=4, kv_heads=4, head_dim=8, intermediate=32, vocab=10)


def plain_attention(q, k, v):
    """Causal attention of one sample, a query at a time. q (n, heads, d), k and v (n, kv heads, d)."""
    out = torch.empty_like(q)
    group = q.shape[1] // k.shape[1]
    for i in range(len(q)):
        for h in range(q.shape[1]):
            scores = k[: i + 1, h // group] @ q[i, h] / q.shape[-1] ** 0.5
            out[i, h] = scores.softmax(0) @ v[: i + 1, h // group]
    return out


def packed(lengths, heads, kv_heads, d=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(sum(lengths), n, d) for n in (heads, kv_heads, kv_heads)]
    return [torch.randn(shape, generator=generator) for shape in shapes]


def cached(packed, layout):
    """Packed prompt rows as they stand in a cache whose other rows hold nonsense."""
    cache = torch.full((layout.rows, *packed.shape[1:]), 1e3)
    lengths = layout.prompts.lengths
    cache[layout.slot_mapping([0] * len(lengths), lengths)] = packed
    return cache


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    kv_heads=st.sampled_from([1, 2, 4]),
    asking=st.integers(0, 4),
    room=st.integers(0, 2),
    padded=st.booleans(),
)
def test_prefill_attention(lengths, kv_heads, asking, room, padded):
    """All rows ask (0), or the last few of each sample."""
    q, k, v = packed(lengths, 4, kv_heads)
    whole = [plain_attention(*parts) for parts in zip(*(x.split(lengths) for x in (q, k, v)), strict=True)]
    count = [min(n, asking) if asking else n for n in lengths]
    last = torch.cat([part[len(part) - n :] for part, n in zip(q.split(lengths), count, strict=True)])
    want = torch.cat([part[len(part) - n :] for part, n in zip(whole, count, strict=True)])
    layout = Layout(Packing(lengths, CPU), room, padded=padded)
    got = padded_attention(last, cached(k, layout), cached(v, layout), Packing(count, CPU), layout)
    torch.testing.assert_close(got, want)


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4), kv_heads=st.sampled_from([1, 2, 4]))
def test_weights_of_the_last_rows(lengths, kv_heads):
    q, k, v = packed(lengths, 4, kv_heads)
    packing = Packing(lengths, CPU)
    layout = Layout(packing, 0, padded=False)
    want = padded_attention(q, k, v, packing, layout)[packing.last]
    weights = row_weights(q[packing.last], packing.pad(k), packing.valid)
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(lengths), 4))
    values = packing.pad(v).repeat_interleave(4 // kv_heads, dim=2)
    torch.testing.assert_close(torch.einsum("bht,bthd->bhd", weights, values), want)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    beams=st.integers(1, 3),
    steps=st.integers(1, 4),
    kv_heads=st.sampled_from([2, 4]),
)
def test_beams_attend_to_the_shared_prompt_and_their_own_suffix(lengths, beams, steps, kv_heads):
    generator = torch.Generator().manual_seed(1)
    samples, heads, d = len(lengths), 4, 8
    packing = Packing(lengths, CPU)
    _, k, v = packed(lengths, heads, kv_heads)
    q = torch.randn(samples, beams, heads, d, generator=generator)
    written = [torch.randn(samples, steps, beams, kv_heads, d, generator=generator) for _ in range(2)]
    ancestry = BeamAncestry(torch.zeros(samples, beams, steps, dtype=torch.long))
    owners = [[[] for _ in range(beams)] for _ in range(samples)]  # (step, beam) of each beam's tokens
    for step in range(steps):
        ancestry.grow(torch.tensor(step + 1))
        owners = [[[*own, (step, b)] for b, own in enumerate(sample)] for sample in owners]
        sources = torch.randint(beams, (samples, beams), generator=generator)
        ancestry.follow(sources)
        owners = [[sample[b] for b in row] for sample, row in zip(owners, sources.tolist(), strict=True)]
    prompt = packing.valid[:, None].expand(-1, beams, -1)
    keys, values = (torch.cat([packing.pad(x), w.flatten(1, 2)], dim=1) for x, w in zip((k, v), written, strict=True))
    visible = torch.cat([prompt, ancestry.visible(torch.tensor(steps), steps)], dim=-1)
    got = beam_attention(q, keys, values, visible, range(len(q)))
    some = list(range(0, samples, 2))
    torch.testing.assert_close(beam_attention(q[some], keys, values, visible[some], some), got[some])
    suffix = [
        torch.stack([torch.stack([torch.stack([w[s, i, m] for i, m in own]) for own in sample])
                     for s, sample in enumerate(owners)])
        for w in written
    ]  # fmt: skip
    for s, (own_k, own_v) in enumerate(zip(k.split(lengths), v.split(lengths), strict=True)):
        for b in range(beams):
            keys, values = torch.cat([own_k, suffix[0][s, b]]), torch.cat([own_v, suffix[1][s, b]])
            for h in range(heads):
                kv = h // (heads // kv_heads)
                weights = (keys[:, kv] @ q[s, b, h] / d**0.5).softmax(0)
                torch.testing.assert_close(got[s, b, h], weights @ values[:, kv])


def test_packing_pads_and_unpads():
    packing = Packing([2, 4, 1], CPU)
    x = torch.arange(7)
    padded = packing.pad(x)
    assert padded.shape == (3, 4)
    assert padded[packing.valid].tolist() == x.tolist()
    assert packing.unpad(padded).tolist() == x.tolist()
    assert packing.last.tolist() == [1, 5, 6]


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False, return_attn_probs=False,
    block_table=None,
):  # fmt: skip
    """A stand-in with the signature that flash-attn 2 documents, computed by SDPA."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert (dropout_p, window_size, softcap, alibi_slopes, block_table) == (0.0, (-1, -1), 0.0, None, None)
    out = []
    for i in range(len(cu_seqlens_q) - 1):
        rows_q = slice(int(cu_seqlens_q[i]), int(cu_seqlens_q[i + 1]))
        rows_k = slice(int(cu_seqlens_k[i]), int(cu_seqlens_k[i + 1]))
        assert rows_q.stop - rows_q.start <= max_seqlen_q and rows_k.stop - rows_k.start <= max_seqlen_k
        heads_first = (x.transpose(0, 1) for x in (q[rows_q], k[rows_k], v[rows_k]))
        count_q, count_k = rows_q.stop - rows_q.start, rows_k.stop - rows_k.start
        mask = torch.ones(count_q, count_k, dtype=torch.bool)  # as documented: causal is aligned at the end
        mask = mask.tril(count_k - count_q) if causal else mask
        out.append(
            torch.nn.functional.scaled_dot_product_attention(
                *heads_first, mask, scale=softmax_scale, enable_gqa=True
            ).transpose(0, 1)
        )
    return torch.cat(out)


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_flash_adapter(monkeypatch, kv_heads):
    calls = []

    def stand_in(*args, **kwargs):
        calls.append(inspect.signature(flash_attn_varlen_func).bind(*args, **kwargs))
        return flash_attn_varlen_func(*args, **kwargs)

    lengths = [3, 7, 1, 5]
    packing = Packing(lengths, CPU)
    q, k, v = packed(lengths, 4, kv_heads)
    layout = Layout(packing, 0, padded=False)
    want = padded_attention(q, k, v, packing, layout)
    monkeypatch.setattr(flash, "_varlen_func", lambda: stand_in)
    assert flash.is_installed()
    packed_rows = Backend("flash-attn")
    assert (packed_rows.name, packed_rows.padded) == ("flash-attn + sdpa", False)
    torch.testing.assert_close(packed_rows.prefill_attention(q, k, v, packing, layout), want)
    last = Packing([1] * 4, CPU)
    got = packed_rows.prefill_attention(q[packing.last], k, v, last, layout)
    torch.testing.assert_close(got, want[packing.last])
    assert len(calls) == 2


@pytest.mark.parametrize("groups_queries", [False, True])
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_torch_s_varlen_adapter(monkeypatch, kv_heads, groups_queries):
    """With a stand-in, as it needs a GPU; older torch has it without `enable_gqa`."""
    calls = []

    def older(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1)):
        assert window_size == (-1, 0) and query.shape[1] == key.shape[1]  # causal
        calls.append(None)
        return flash_attn_varlen_func(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, causal=True)

    def newer(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, window_size=(-1, -1), enable_gqa=False):
        assert window_size == (-1, 0) and enable_gqa == (query.shape[1] != key.shape[1])
        calls.append(enable_gqa)
        return flash_attn_varlen_func(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, causal=True)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", newer if groups_queries else older)
    attention._varlen_groups_queries.cache_clear()
    lengths = [3, 7, 1, 5]
    packing = Packing(lengths, CPU)
    q, k, v = packed(lengths, 4, kv_heads)
    layout = Layout(packing, 0, padded=False)
    want = padded_attention(q, k, v, packing, layout)
    torch.testing.assert_close(Backend("torch-varlen").prefill_attention(q, k, v, packing, layout), want)
    assert calls == [kv_heads == 2 if groups_queries else None]
    attention._varlen_groups_queries.cache_clear()


def test_flash_attn_is_not_needed():
    assert not flash.is_installed()
    for dtype in (torch.float32, torch.bfloat16):
        chosen = choose(CPU, dtype, SHAPE)
        assert (type(chosen), chosen.name, chosen.padded) == (Backend, "sdpa + sdpa", True)


@pytest.mark.parametrize(("capability", "dtype", "head_dim", "installed", "name"), [
    ((9, 0), torch.bfloat16, 128, False, "torch-varlen + triton"),
    ((8, 0), torch.float16, 64, True, "flash-attn + triton"),
    ((9, 0), torch.bfloat16, 12, False, "sdpa + triton"),  # which torch's flash attention does not compute
    ((9, 0), torch.float32, 128, True, "sdpa + triton"),
    ((7, 5), torch.float16, 128, True, "sdpa + sdpa"),
])  # fmt: skip
def test_the_backend_of_a_gpu(monkeypatch, capability, dtype, head_dim, installed, name):
    """Asked of a GPU that is not there; queries may share keys everywhere."""
    if sys.platform != "linux":
        pytest.skip("there is no Triton for this system")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(flash, "is_installed", lambda: installed)
    for kv_heads in (4, 2):
        chosen = choose(torch.device("cuda"), dtype, replace(SHAPE, head_dim=head_dim, kv_heads=kv_heads))
        assert (chosen.name, chosen.padded) == (name, name.startswith("sdpa"))
        assert chosen.captures == chosen.decodes_in_place == name.endswith("triton")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose(torch.device("cuda"), dtype, SHAPE).name == "sdpa + sdpa"  # without Triton, as on Windows
