"""Attention as the fast engine needs it: over packed prompts, and of decoding beams over a prompt that they share."""

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


def beam_attention(
    q: Tensor, prompt: tuple[Tensor, Tensor], valid: Tensor, suffix: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Attention of each beam's newest token over the prompt, which a sample's beams share, and over its own suffix.

    Args:
        q: (samples, beams, heads, head_dim).
        prompt: keys and values, (samples, tokens, kv heads, head_dim).
        valid: (samples, tokens) bool, False on padding.
        suffix: keys and values of the generated tokens, (samples, beams, steps, kv heads, head_dim).

    Returns:
        (samples, beams, heads, head_dim).
    """
    kv_heads = prompt[0].shape[2]
    q = q.unflatten(2, (kv_heads, -1)) / math.sqrt(q.shape[-1])  # (samples, beams, kv heads, group, head_dim)
    scores = torch.einsum("bnkgd,btkd->bnkgt", q, prompt[0]).masked_fill(~valid[:, None, None, None], -math.inf)
    if suffix is not None:
        scores = torch.cat([scores, torch.einsum("bnkgd,bnskd->bnkgs", q, suffix[0])], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    tokens = valid.shape[1]
    out = torch.einsum("bnkgt,btkd->bnkgd", weights[..., :tokens], prompt[1])
    if suffix is not None:
        out = out + torch.einsum("bnkgs,bnskd->bnkgd", weights[..., tokens:], suffix[1])
    return out.flatten(2, 3)
