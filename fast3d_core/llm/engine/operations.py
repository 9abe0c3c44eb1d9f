"""What stands between the matrix products of a layer, in plain torch; `kernels.py` has the same for GPUs."""

import torch
from torch import Tensor
from torch.nn import functional

HeadNorms = tuple[Tensor, Tensor]
"""The weights, (head_dim,) each, of the norms of a head's queries and of its keys."""


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x (..., n) over the root mean square of its last dimension, times weight (n,)."""
    return functional.rms_norm(x, x.shape[-1:], weight, epsilon)


def rotate_into(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    keys: Tensor,
    values: Tensor,
    slot_mapping: Tensor,
    norms: HeadNorms | None = None,
    epsilon: float = 0.0,
) -> Tensor:
    """Rotates positions into new queries and keys, and puts keys and values into their cache.

    Args:
        qkv: (rows, (heads + 2 kv heads) x head_dim), what the projections give: queries, keys, values.
        cos, sin: (rows, head_dim) rope cos and sin of the rows' positions.
        keys, values: (cache rows, kv heads, head_dim), written.
        slot_mapping: (rows,) int64, the cache row that each row goes to.
        norms, epsilon: of heads that are normalised before they are rotated.

    Returns:
        The queries, (rows, heads, head_dim).
    """
    kv_heads, head_dim = keys.shape[1:]
    heads = qkv.shape[1] // head_dim - 2 * kv_heads
    q, k, v = qkv.unflatten(1, (-1, head_dim)).split([heads, kv_heads, kv_heads], dim=1)
    if norms is not None:
        q, k = rms_norm(q, norms[0], epsilon), rms_norm(k, norms[1], epsilon)
    keys.index_copy_(0, slot_mapping, rotate(k, cos, sin))
    values.index_copy_(0, slot_mapping, v)
    return rotate(q, cos, sin)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on (..., heads, head_dim); cos and sin are (..., head_dim)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.unsqueeze(-2) + torch.cat((-second, first), dim=-1) * sin.unsqueeze(-2)


def gated(both: Tensor) -> Tensor:
    """silu(gate) * up of (rows, 2 x width), gate before up: (rows, width)."""
    gate, up = both.chunk(2, dim=1)
    return functional.silu(gate) * up
