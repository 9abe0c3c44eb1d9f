"""What stands between the matrix products of a layer: one Triton kernel each on a GPU, plain torch elsewhere."""

import importlib.util
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional


@cache
def has_triton() -> bool:
    """Whether the kernels can be compiled: torch's CUDA builds for Linux bring Triton along."""
    return importlib.util.find_spec("triton") is not None


def uses_kernels(device: torch.device) -> bool:
    """Whether the engine's own kernels run on this device: on NVIDIA GPUs that know bf16."""
    return device.type == "cuda" and has_triton() and torch.cuda.get_device_capability(device) >= (8, 0)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x (rows, hidden) over its root mean square, times weight (hidden,)."""
    if uses_kernels(x.device):
        from fast3d_core.llm.engine import kernels

        return kernels.rms_norm(x, weight, epsilon)
    return functional.rms_norm(x, x.shape[1:], weight, epsilon)


def rotate_into(qkv: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """Rotates positions into fresh queries and keys, and puts keys and values into their cache.

    Args:
        qkv: (rows, (heads + 2 kv heads) x head_dim), what the projections give: queries, keys, values.
        cos, sin: (rows, head_dim) rotary tables of the rows' positions.
        keys, values: (cache rows, kv heads, head_dim), written.
        places: (rows,) int64, where in the cache each row goes.

    Returns:
        The queries, (rows, heads, head_dim).
    """
    if uses_kernels(qkv.device):
        from fast3d_core.llm.engine import kernels

        return kernels.rotate_into(qkv, cos, sin, keys, values, places)
    kv_heads, dim = keys.shape[1:]
    q, k, v = qkv.unflatten(1, (-1, dim)).split([qkv.shape[1] // dim - 2 * kv_heads, kv_heads, kv_heads], dim=1)
    keys.index_copy_(0, places, rotate(k, cos, sin))
    values.index_copy_(0, places, v)
    return rotate(q, cos, sin)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on (..., heads, head_dim); cos and sin are (..., head_dim)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.unsqueeze(-2) + torch.cat((-second, first), dim=-1) * sin.unsqueeze(-2)


def gated(both: Tensor) -> Tensor:
    """silu(gate) * up of (rows, 2 x width), gate before up: (rows, width)."""
    if uses_kernels(both.device):
        from fast3d_core.llm.engine import kernels

        return kernels.gated(both)
    gate, up = both.chunk(2, dim=1)
    return functional.silu(gate) * up
