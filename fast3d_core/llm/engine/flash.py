"""The one place that calls flash-attn (optional: `pip install "fast3d[flash-attn]"`).

`flash_attn_varlen_func` takes packed rows as they are, so that nothing is padded, and queries that share keys (GQA). It
needs a GPU and number type that `backend.choose` asks for; where it is absent, torch's own attention is used. The tests
run this adapter against a stand-in with the documented signature; the real library has not been run with fast3d.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

from torch import Tensor

from fast3d_core.llm.engine.packing import Seqlens


@cache
def _varlen_func() -> Callable[..., Any] | None:
    if importlib.util.find_spec("flash_attn") is None:
        return None
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:  # built for another torch
        return None
    return flash_attn_varlen_func


def is_installed() -> bool:
    """Whether flash-attn is there and can be imported."""
    return _varlen_func() is not None


def causal_attention(q: Tensor, k: Tensor, v: Tensor, queries: Seqlens, keys: Seqlens) -> Tensor:
    """Causal attention inside each sample of packed rows; the queries are the last of its rows.

    Args:
        q: (query rows, heads, head_dim); k, v: (key rows, kv heads, head_dim).

    Returns:
        (query rows, heads, head_dim).
    """
    function = _varlen_func()
    assert function is not None  # callers ask `is_installed` first
    return function(
        q,
        k,
        v,
        cu_seqlens_q=queries.cu_seqlens,
        cu_seqlens_k=keys.cu_seqlens,
        max_seqlen_q=queries.max_seqlen,
        max_seqlen_k=keys.max_seqlen,
        causal=True,  # aligned at the end: the last query sees every key
    )
