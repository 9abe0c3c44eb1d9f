"""The fast engine: pruned tokens are really dropped, and nothing is computed or stored for them from layer K on.

Prefill reads each prompt once, packed, whatever the number of beams. Every layer keeps keys and values of just the
tokens that it saw; a sample's beams share them, and only the generated suffix belongs to a beam. Kept tokens keep their
original positions, and the first new token stands behind the unpruned prompt, so dropping equals masking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from fast3d_core.config import GenerationConfig
from fast3d_core.plan import Plan
from fast3d_core.vicuna.attention import beam_attention, prefill_attention, row_weights
from fast3d_core.vicuna.beam import BeamSearch, GreedySearch
from fast3d_core.vicuna.llm import Generation, Prompt, finish_layer, project
from fast3d_core.vicuna.packing import Packing


@dataclass
class LayerCache:
    """Keys and values of one layer.

    Attributes:
        prompt: each (samples, tokens, kv heads, head_dim), the tokens this layer saw, right-padded; never reordered.
        valid: (samples, tokens) bool, False on padding.
        suffix: each (samples, beams, max_new_tokens - 1, kv heads, head_dim), filled from the left.
    """

    prompt: tuple[Tensor, Tensor]
    valid: Tensor
    suffix: tuple[Tensor, Tensor] | None = None


@dataclass
class Prefilled:
    """A batch of prompts after prefill.

    Attributes:
        logits: (samples, vocab) float32 for the first new token.
        caches: one a layer.
        kept: offsets of the visual tokens that layers >= K saw, per sample.
        lengths: (samples,) unpruned prompt lengths, the position of the first new token.
    """

    logits: Tensor
    caches: list[LayerCache]
    kept: list[Tensor]
    lengths: Tensor


@torch.inference_mode()
def prefill(llm: LlamaForCausalLM, prompts: Sequence[Prompt], plans: Sequence[Plan]) -> Prefilled:
    """Reads the prompts. All plans must have the same K; kept counts and prompt lengths may differ."""
    device = prompts[0].embeds.device
    layers = llm.model.layers
    drop_at = plans[0].layer
    assert all(plan.layer == drop_at for plan in plans)
    x = torch.cat([prompt.embeds for prompt in prompts])
    packing = Packing([len(prompt) for prompt in prompts], device)
    lengths = packing.offsets.diff()
    positions = torch.cat([torch.arange(len(prompt), device=device) for prompt in prompts])
    cos, sin = (table[0] for table in llm.model.rotary_emb(x, positions[None]))
    kept = [plan.kept for plan in plans]
    caches: list[LayerCache] = []
    for i, layer in enumerate(layers):
        if i == drop_at:
            assert all(offsets is not None for offsets in kept)
            rows = _kept_rows(prompts, packing, kept)  # type: ignore[arg-type]
            if len(rows) < packing.total:
                packing = Packing([len(p) - p.visual + len(k) for p, k in zip(prompts, kept, strict=True)], device)  # type: ignore[arg-type]
                x, cos, sin = x[rows], cos[rows], sin[rows]
        q, k, v = project(layer, x, cos, sin)
        cache = LayerCache((packing.pad(k), packing.pad(v)), packing.valid)
        caches.append(cache)
        if i == drop_at - 1 and any(plan.choose is not None for plan in plans):
            weights = row_weights(q[packing.last], cache.prompt[0], packing.valid).mean(dim=1).cpu()
            kept = [_choose(plan, prompt, row) for plan, prompt, row in zip(plans, prompts, weights, strict=True)]
        if i < len(layers) - 1:
            x = finish_layer(layer, x, prefill_attention(q, k, v, packing))
        else:  # nobody reads the other rows of the last layer
            attended = beam_attention(q[packing.last][:, None], cache.prompt, packing.valid)[:, 0]
            x = finish_layer(layer, x[packing.last], attended)
    logits = llm.lm_head(llm.model.norm(x)).float()
    return Prefilled(logits, caches, kept, lengths)  # type: ignore[arg-type]


def _choose(plan: Plan, prompt: Prompt, row: Tensor) -> Tensor | None:
    return plan.resolve(row[prompt.visual_start : prompt.visual_start + prompt.visual]) if plan.choose else plan.kept


def _kept_rows(prompts: Sequence[Prompt], packing: Packing, kept: Sequence[Tensor]) -> Tensor:
    """Packed rows that stay: the text around the visual tokens, and the kept ones among them."""
    rows = []
    for prompt, offsets, begin in zip(prompts, kept, packing.offsets.tolist(), strict=False):
        start, end = prompt.visual_start, prompt.visual_start + prompt.visual
        stay = torch.cat([torch.arange(start), start + offsets.cpu(), torch.arange(end, len(prompt))])
        rows.append(begin + stay)
    return torch.cat(rows).to(packing.offsets.device)


@torch.inference_mode()
def generate(
    llm: LlamaForCausalLM,
    prompts: Sequence[Prompt],
    plans: Sequence[Plan],
    settings: GenerationConfig,
    bos: int,
    eos: int,
) -> list[Generation]:
    """Answers to a batch of prompts, by beam search, or by greedy search where `settings.beams` is 1."""
    state = prefill(llm, prompts, plans)
    samples, device = len(prompts), state.logits.device
    kind = GreedySearch if settings.beams == 1 else BeamSearch
    search = kind(samples, settings, bos, eos, device)
    tokens, _ = search.advance(state.logits[:, None])
    for cache in state.caches:
        shape = (samples, settings.beams, settings.max_new_tokens - 1, *cache.prompt[0].shape[2:])
        cache.suffix = (cache.prompt[0].new_empty(shape), cache.prompt[0].new_empty(shape))
    step = 0
    while not search.finished:
        logits = _decode_step(llm, state, tokens, step)
        tokens, sources = search.advance(logits)
        step += 1
        if sources is not None:
            _reorder(state.caches, sources, step)
    steps = search.steps.tolist()
    return [
        Generation(ids, score, n, kept) for (ids, score), n, kept in zip(search.best(), steps, state.kept, strict=True)
    ]


def _decode_step(llm: LlamaForCausalLM, state: Prefilled, tokens: Tensor, step: int) -> Tensor:
    """Logits (samples, beams, vocab) float32 after the new tokens (samples, beams); `step` counts from 0."""
    x = llm.model.embed_tokens(tokens)
    positions = (state.lengths + step)[:, None].expand_as(tokens)
    cos, sin = llm.model.rotary_emb(x, positions)
    for layer, cache in zip(llm.model.layers, state.caches, strict=True):
        x = _decode_layer(layer, x, cos, sin, cache, step)
    return llm.lm_head(llm.model.norm(x)).float()


def _decode_layer(layer: Any, x: Tensor, cos: Tensor, sin: Tensor, cache: LayerCache, step: int) -> Tensor:
    q, k, v = project(layer, x, cos, sin)
    assert cache.suffix is not None
    cache.suffix[0][:, :, step], cache.suffix[1][:, :, step] = k, v
    suffix = (cache.suffix[0][:, :, : step + 1], cache.suffix[1][:, :, : step + 1])
    return finish_layer(layer, x, beam_attention(q, cache.prompt, cache.valid, suffix))


def _reorder(caches: list[LayerCache], sources: Tensor, steps: int) -> None:
    """Lets each beam continue the suffix of the beam it came from; prompts are shared and stay."""
    sample = torch.arange(len(sources), device=sources.device)[:, None]
    for cache in caches:
        assert cache.suffix is not None
        for suffix in cache.suffix:
            suffix[:, :, :steps] = suffix[sample, sources, :steps]
