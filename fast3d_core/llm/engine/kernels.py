"""The Triton kernels of the fast engine on a GPU (`backend.TritonBackend`); the same in plain torch is in
`operations.py`, and that of attention is `attention.beam_attention`.

Between two matrix products of a layer there is one of them, so that a decoding step reads weights, reads the caches
once, and does little else:

- `rms_norm`: torch's own takes three times as long on few rows;
- `rotate_into`: rotary positions on new queries and keys, behind the head norms where a family has them; keys and
  values go straight to their slot in the cache;
- `attend_beams`: the newest token of all beams of a sample against the sample's prompt, read once for all of them, and
  against what the beams wrote, each following its beam ancestry;
- `gated`: silu(gate) * up.

Triton comes with torch's CUDA builds; TRITON_INTERPRET=1 runs these on a CPU (tests/llm/test_kernels.py).
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from fast3d_core.llm.engine.operations import HeadNorms

_HEADS_A_PROGRAM = 8
_BLOCKS = 64, 64  # tokens of the prompt, and of what was generated, at once; the fastest of 55 settings on an H100
# Queries of a program, by bytes of a number: with `_BLOCKS` and heads of 128 these fit the shared memory of all GPUs.
_MOST_ROWS = {2: 64, 4: 32}


@triton.jit
def _rms_norm(x, weight, out, epsilon, width: tl.constexpr, padded: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, padded)
    there = column < width
    value = tl.load(x + row * width + column, mask=there, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / width + epsilon)
    factor = tl.load(weight + column, mask=there, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, value * scale * factor, mask=there)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """See `operations.rms_norm`."""
    out, width = torch.empty_like(x), x.shape[1]
    _rms_norm[(len(x),)](x, weight, out, epsilon, width, triton.next_power_of_2(width), num_warps=8)
    return out


@triton.jit
def _rotate_into(
    qkv, cos, sin, slot_mapping, q_norm, k_norm, q_out, keys, values, epsilon,
    heads: tl.constexpr, kv_heads: tl.constexpr, dim: tl.constexpr, half_padded: tl.constexpr, chunk: tl.constexpr,
    normed: tl.constexpr,
):  # fmt: skip
    """One row, `chunk` of its heads (queries, then keys, then values)."""
    row = tl.program_id(0).to(tl.int64)
    half: tl.constexpr = dim // 2
    every: tl.constexpr = heads + 2 * kv_heads
    head = tl.program_id(1) * chunk + tl.arange(0, chunk)[:, None]
    d = tl.arange(0, half_padded)[None, :]
    there = (head < every) & (d < half)
    is_query = there & (head < heads)
    is_key = there & (head >= heads) & (head < heads + kv_heads)
    is_value = there & (head >= heads + kv_heads)
    source = qkv + row * every * dim + head * dim + d
    first = tl.load(source, mask=there, other=0.0).to(tl.float32)
    second = tl.load(source + half, mask=there, other=0.0).to(tl.float32)
    slot = tl.load(slot_mapping + row)
    target = values + (slot * kv_heads + head - heads - kv_heads) * dim + d
    tl.store(target, first, mask=is_value)
    tl.store(target + half, second, mask=is_value)
    if normed:
        scale = tl.rsqrt(tl.sum(first * first + second * second, 1) / dim + epsilon)[:, None]
        inside, of_query = d < half, head < heads
        q_first, k_first = tl.load(q_norm + d, mask=inside, other=0.0), tl.load(k_norm + d, mask=inside, other=0.0)
        first = first * scale * tl.where(of_query, q_first, k_first).to(tl.float32)
        q_second = tl.load(q_norm + half + d, mask=inside, other=0.0)
        k_second = tl.load(k_norm + half + d, mask=inside, other=0.0)
        second = second * scale * tl.where(of_query, q_second, k_second).to(tl.float32)
    table = row * dim + d
    cos_first = tl.load(cos + table, mask=d < half, other=0.0).to(tl.float32)
    cos_second = tl.load(cos + table + half, mask=d < half, other=0.0).to(tl.float32)
    sin_first = tl.load(sin + table, mask=d < half, other=0.0).to(tl.float32)
    sin_second = tl.load(sin + table + half, mask=d < half, other=0.0).to(tl.float32)
    rotated_first = first * cos_first - second * sin_first
    rotated_second = second * cos_second + first * sin_second
    target = q_out + (row * heads + head) * dim + d
    tl.store(target, rotated_first, mask=is_query)
    tl.store(target + half, rotated_second, mask=is_query)
    target = keys + (slot * kv_heads + head - heads) * dim + d
    tl.store(target, rotated_first, mask=is_key)
    tl.store(target + half, rotated_second, mask=is_key)


def rotate_into(
    qkv: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, slot_mapping: Tensor,
    norms: HeadNorms | None = None, epsilon: float = 0.0,
) -> Tensor:  # fmt: skip
    """See `operations.rotate_into`."""
    rows, (kv_heads, dim) = len(qkv), keys.shape[1:]
    every = qkv.shape[1] // dim
    heads = every - 2 * kv_heads
    q = qkv.new_empty(rows, heads, dim)
    _rotate_into[(rows, triton.cdiv(every, _HEADS_A_PROGRAM))](
        qkv, cos, sin, slot_mapping, *(norms or (qkv, qkv)), q, keys, values, epsilon,
        heads, kv_heads, dim, triton.next_power_of_2(dim // 2), _HEADS_A_PROGRAM, norms is not None,
    )  # fmt: skip
    return q


@triton.jit
def _attend_block(query, score_scale, k, v, seen, best, total, gathered):
    """Adds a block of keys and values, (block, dim), to a running softmax. `seen` (rows, block)."""
    scores = tl.dot(query, tl.trans(k), input_precision="ieee") * score_scale
    scores = tl.where(seen, scores, float("-inf"))
    new_best = tl.maximum(best, tl.max(scores, 1))
    weights = tl.exp2(scores - new_best[:, None])
    shrink = tl.exp2(best - new_best)
    total = total * shrink + tl.sum(weights, 1)
    gathered = gathered * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
    return new_best, total, gathered


@triton.jit
def _attend_beams(
    q, keys, values, begin, end, new, written_by, number, done, out, score_scale, max_tokens,
    beams: tl.constexpr, heads: tl.constexpr, kv_heads: tl.constexpr, dim: tl.constexpr, dim_padded: tl.constexpr,
    rows: tl.constexpr, block: tl.constexpr, new_block: tl.constexpr,
):  # fmt: skip
    """One sample, one key head, `rows` of the queries of all beams and of all query heads that share the key head."""
    sample, kv_head = tl.program_id(0), tl.program_id(1)
    group: tl.constexpr = heads // kv_heads
    row = tl.program_id(2) * rows + tl.arange(0, rows)
    beam, head = row // group, kv_head * group + row % group
    real = row < beams * group
    d = tl.arange(0, dim_padded)
    whole = d < dim
    own = ((sample * beams + beam) * heads + head)[:, None] * dim + d[None, :]
    if tl.load(done + sample):  # a finished sample's result is not used
        tl.store(out + own, tl.zeros((rows, dim_padded), tl.float32), mask=real[:, None] & whole[None, :])
        return
    query = tl.load(q + own, mask=real[:, None] & whole[None, :], other=0.0)
    best = tl.full((rows,), float("-inf"), tl.float32)
    total = tl.zeros((rows,), tl.float32)
    gathered = tl.zeros((rows, dim_padded), tl.float32)
    last = tl.load(end + sample)
    for start in range(tl.load(begin + sample), last, block):
        token = start + tl.arange(0, block)
        there = token < last
        address = (token.to(tl.int64) * kv_heads + kv_head)[:, None] * dim + d[None, :]
        mask = there[:, None] & whole[None, :]
        k = tl.load(keys + address, mask=mask, other=0.0)
        v = tl.load(values + address, mask=mask, other=0.0)
        best, total, gathered = _attend_block(query, score_scale, k, v, there[None, :], best, total, gathered)
    first_new = tl.load(new + sample)
    written = tl.load(number).to(tl.int32) * beams
    for start in range(0, written, new_block):
        token = start + tl.arange(0, new_block)
        there = token < written
        address = ((first_new + token).to(tl.int64) * kv_heads + kv_head)[:, None] * dim + d[None, :]
        mask = there[:, None] & whole[None, :]
        k = tl.load(keys + address, mask=mask, other=0.0)
        v = tl.load(values + address, mask=mask, other=0.0)
        ancestor = (sample * beams + beam)[:, None] * max_tokens + (token // beams)[None, :]
        writer = tl.load(written_by + ancestor, mask=real[:, None] & there[None, :], other=-1)
        seen = there[None, :] & (writer == (token % beams)[None, :])
        best, total, gathered = _attend_block(query, score_scale, k, v, seen, best, total, gathered)
    result = gathered / total[:, None]
    tl.store(out + own, result, mask=real[:, None] & whole[None, :])


def attend_beams(
    q: Tensor, keys: Tensor, values: Tensor, begin: Tensor, end: Tensor, new: Tensor, written_by: Tensor,
    number: Tensor, done: Tensor,
) -> Tensor:  # fmt: skip
    """`attention.beam_attention`, of caches where they are.

    Args:
        q: (samples, beams, heads, head_dim); keys, values: (cache rows, kv heads, head_dim).
        begin, end, new: (samples,) int32, rows of `cache.Layout.bounds`.
        written_by: (samples, beams, tokens) int32, of `decode.BeamAncestry.written_by`.
        number: () int64, how many tokens a beam has.
        done: (samples,) bool; for those zeros come out.
    """
    (samples, beams, heads, dim), kv_heads = q.shape, keys.shape[1]
    out = torch.empty_like(q)
    queries = beams * heads // kv_heads
    rows = min(max(16, triton.next_power_of_2(queries)), _MOST_ROWS[q.element_size()])
    _attend_beams[(samples, kv_heads, triton.cdiv(queries, rows))](
        q, keys, values, begin, end, new, written_by, number, done, out,
        math.log2(math.e) / math.sqrt(dim), written_by.shape[2],
        beams, heads, kv_heads, dim, max(16, triton.next_power_of_2(dim)), rows, *_BLOCKS,
        num_warps=rows // 8, num_stages=1,
    )  # fmt: skip
    return out


@triton.jit
def _gated(both, out, width, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    there = column < width
    gate = tl.load(both + row * 2 * width + column, mask=there, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * width + width + column, mask=there, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, gate * tl.sigmoid(gate) * up, mask=there)


def gated(both: Tensor) -> Tensor:
    """See `operations.gated`."""
    rows, width = len(both), both.shape[1] // 2
    out = both.new_empty(rows, width)
    _gated[(rows, triton.cdiv(width, 1024))](both, out, width, 1024)
    return out
