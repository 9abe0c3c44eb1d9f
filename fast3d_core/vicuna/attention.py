"""Attention as the fast engine needs it: over packed prompts, and of decoding beams over what they share."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from fast3d_core.vicuna import flash
from fast3d_core.vicuna.packing import Packing


def backend(device: torch.device, dtype: torch.dtype) -> str:
    """What prefill attention runs on: "flash-attn" where it is installed and fits, else torch's "sdpa"."""
    return "flash-attn" if flash.usable(device, dtype) else "sdpa"


def prefill_attention(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """Causal attention inside each sample of packed rows.

    Rows keep their order when tokens are dropped, so a row sees exactly the rows before it: no mask is needed.

    Args:
        q: (total, heads, head_dim); k, v: (total, kv heads, head_dim).

    Returns:
        (total, heads, head_dim).
    """
    if backend(q.device, q.dtype) == "flash-attn":
        return flash.causal_attention(q, k, v, packing)
    q, k, v = (packing.pad(x).transpose(1, 2) for x in (q, k, v))
    # Padding stands behind a sample's rows, where causal attention never looks.
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])
    return packing.unpad(out.transpose(1, 2))


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


def beam_attention(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Attention of each beam's newest token to keys that all beams of its sample share.

    Args:
        q: (samples, beams, heads, head_dim).
        k, v: (samples, tokens, kv heads, head_dim), finite everywhere.
        visible: (samples, beams or 1, tokens) bool, which of them each beam sees; at least one.

    Returns:
        (samples, beams, heads, head_dim).
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    gqa = q.shape[1] != k.shape[1]
    return functional.scaled_dot_product_attention(q, k, v, visible[:, None], enable_gqa=gqa).transpose(1, 2)
