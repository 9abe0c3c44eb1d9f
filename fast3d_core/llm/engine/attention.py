"""Attention as the fast engine needs it: over prompts, and of decoding beams over what they share."""

import inspect
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fast3d_core.llm.engine.cache import Layout
from fast3d_core.llm.engine.packing import Packing, Seqlens


def padded_attention(q: Tensor, keys: Tensor, values: Tensor, queries: Packing, layout: Layout) -> Tensor:
    """Causal attention of each sample's last rows to all rows of its prompt, by torch's attention over padded rows.

    Rows keep their order when tokens are dropped, so a row sees exactly the rows before it.

    Args:
        q: (query rows, heads, head_dim), packed.
        keys, values: (cache rows, kv heads, head_dim).
        queries: how many query rows each sample has.
        layout: of the cache.

    Returns:
        (query rows, heads, head_dim).
    """
    prompts = layout.prompts
    q, k, v = (x.transpose(1, 2) for x in (queries.pad(q), layout.view(keys), layout.view(values)))
    mask = None
    if queries.lengths != prompts.lengths:
        position = (
            torch.arange(queries.max_seqlen, device=q.device)[:, None] + _difference(prompts, queries)[:, None, None]
        )
        mask = (torch.arange(prompts.max_seqlen, device=q.device) <= position)[:, None]
    # Padding stands behind a sample's rows, where causal attention never looks.
    gqa = q.shape[1] != k.shape[1]
    out = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None, enable_gqa=gqa)
    return queries.unpad(out.transpose(1, 2))


def _difference(prompts: Packing, queries: Packing) -> Tensor:
    """(samples,) how many rows stand before the first that asks."""
    return prompts.cu_seqlens.diff() - queries.cu_seqlens.diff()


def varlen_attention(q: Tensor, k: Tensor, v: Tensor, queries: Seqlens, prompts: Seqlens) -> Tensor:
    """The same over packed rows, by torch's flash attention; k and v are (prompt rows, kv heads, head_dim)."""
    from torch.nn.attention.varlen import varlen_attn

    more: dict[str, Any] = {}
    if q.shape[1] != k.shape[1]:
        if _varlen_groups_queries():
            more = {"enable_gqa": True}
        else:
            k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    out = varlen_attn(
        q,
        k,
        v,
        queries.cu_seqlens,
        prompts.cu_seqlens,
        queries.max_seqlen,
        prompts.max_seqlen,
        window_size=(-1, 0),
        **more,
    )
    assert isinstance(out, Tensor)
    return out


@cache
def _varlen_groups_queries() -> bool:
    """Whether this torch's varlen_attn lets queries share keys; that came later than the function."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def row_weights(q: Tensor, k: Tensor, valid: Tensor) -> Tensor:
    """Attention weights of one query row per sample.

    Args:
        q: (samples, heads, head_dim); k: (samples, tokens, kv heads, head_dim); valid: (samples, tokens) bool.

    Returns:
        (samples, heads, tokens) float32.
    """
    k = k.repeat_interleave(q.shape[1] // k.shape[2], dim=2)
    scores = torch.einsum("bhd,bthd->bht", q, k) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~valid[:, None], -math.inf).softmax(dim=-1, dtype=torch.float32)


def beam_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor, samples: Sequence[int]) -> Tensor:
    """Attention of each beam's newest token to keys that all beams of its sample share.

    Args:
        q: (samples, beams, heads, head_dim).
        k, v: (all samples, tokens, kv heads, head_dim), finite everywhere.
        visible: (samples, beams or 1, tokens) bool, which of them each beam sees; at least one.
        samples: those of the beams.

    Returns:
        (samples, beams, heads, head_dim).
    """
    if len(samples) < len(k):  # one by one, as picking them out would copy their keys and values
        out = torch.empty_like(q)
        for i, sample in enumerate(samples):
            own = slice(sample, sample + 1)
            out[i] = beam_attention(q[i : i + 1], k[own], v[own], visible[i : i + 1], [0])[0]
        return out
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    gqa = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, visible[:, None], enable_gqa=gqa).transpose(1, 2)
