"""The fast engine: pruned tokens are really dropped, and nothing is computed or stored for them from layer K on.

Prefill reads each prompt once, packed, whatever the number of beams. Every layer keeps keys and values of just the
tokens that it saw; a sample's beams share them. Generated tokens stand behind them, those of all beams, and a beam sees
its own; so nothing is ever copied or reordered. Kept tokens keep their original positions, and the first new token
stands behind the unpruned prompt, so dropping equals masking.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from fast3d_core.config import GenerationConfig
from fast3d_core.plan import Plan
from fast3d_core.vicuna.attention import beam_attention, prefill_attention, row_weights
from fast3d_core.vicuna.beam import BeamSearch, GreedySearch
from fast3d_core.vicuna.llm import Generation, Prompt, finish_layer, project
from fast3d_core.vicuna.packing import Packing


@dataclass
class LayerCache:
    """Keys and values of one layer, one set a sample, whatever the number of beams.

    Attributes:
        keys, values: (samples, tokens + room, kv heads, head_dim): the prompt tokens that this layer saw, right-padded,
            then room for generated ones: every beam's of the first step, every beam's of the second, ...
        valid: (samples, tokens) bool, False on padding.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor

    @classmethod
    def of_prompts(cls, keys: Tensor, values: Tensor, packing: Packing, room: int) -> "LayerCache":
        """Of packed keys and values, (total, kv heads, head_dim)."""
        kept = []
        for packed in (keys, values):
            padded = packing.pad(packed)
            # Zeros: what attention does not see must be finite all the same.
            kept.append(functional.pad(padded, (0, 0, 0, 0, 0, room)) if room else padded)
        return cls(kept[0], kept[1], packing.valid)


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
def prefill(llm: LlamaForCausalLM, prompts: Sequence[Prompt], plans: Sequence[Plan], room: int = 0) -> Prefilled:
    """Reads the prompts. All plans must have the same K; kept counts and prompt lengths may differ.

    Args:
        room: places for generated tokens that caches get behind each prompt.
    """
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
        cache = LayerCache.of_prompts(k, v, packing, room)
        caches.append(cache)
        if i == drop_at - 1 and any(plan.choose is not None for plan in plans):
            keys = cache.keys[:, : packing.longest]
            weights = row_weights(q[packing.last], keys, packing.valid).mean(dim=1).cpu()
            kept = [_choose(plan, prompt, row) for plan, prompt, row in zip(plans, prompts, weights, strict=True)]
        if i < len(layers) - 1:
            x = finish_layer(layer, x, prefill_attention(q, k, v, packing))
        else:  # nobody reads the other rows of the last layer
            seen_k, seen_v = (part[:, : packing.longest] for part in (cache.keys, cache.values))
            attended = beam_attention(q[packing.last][:, None], seen_k, seen_v, packing.valid[:, None])[:, 0]
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
    beams = settings.beams
    state = prefill(llm, prompts, plans, room=beams * (settings.max_new_tokens - 1))
    samples, device = len(prompts), state.logits.device
    kind = GreedySearch if beams == 1 else BeamSearch
    search = kind(samples, settings, bos, eos, device)
    tokens, _ = search.advance(state.logits[:, None])
    ancestry = Ancestry(samples, beams, settings.max_new_tokens, device)
    while not search.finished:
        ancestry.grow()
        tokens, sources = search.advance(_decode_step(llm, state, tokens, ancestry))
        if sources is not None:
            ancestry.follow(sources)
    steps = search.steps.tolist()
    return [
        Generation(ids, score, n, kept) for (ids, score), n, kept in zip(search.best(), steps, state.kept, strict=True)
    ]


class Ancestry:
    """Which beam each generated token of a beam was written by: so beams are followed without moving a key or value.

    Attributes:
        steps: tokens that each beam has.
        slots: (samples, beams, max_new_tokens), the beam under which the token of a step stands in the caches.
    """

    def __init__(self, samples: int, beams: int, max_new_tokens: int, device: torch.device):
        self.steps = 0
        self._beams = torch.arange(beams, device=device)
        self.slots = torch.zeros(samples, beams, max_new_tokens, dtype=torch.long, device=device)

    def grow(self) -> None:
        """Every beam writes a token of its own."""
        self.slots[:, :, self.steps] = self._beams
        self.steps += 1

    def follow(self, sources: Tensor) -> None:
        """Every beam goes on from the beam `sources` (samples, beams)."""
        self.slots = self.slots.gather(1, sources[..., None].expand_as(self.slots))

    def visible(self) -> Tensor:
        """(samples, beams, steps x beams) bool, which of the generated tokens in the caches are a beam's own."""
        return (self.slots[:, :, : self.steps, None] == self._beams).flatten(2)


def _decode_step(llm: LlamaForCausalLM, state: Prefilled, tokens: Tensor, ancestry: Ancestry) -> Tensor:
    """Logits (samples, beams, vocab) float32 after the new tokens (samples, beams)."""
    x = llm.model.embed_tokens(tokens)
    positions = (state.lengths + ancestry.steps - 1)[:, None].expand_as(tokens)
    cos, sin = llm.model.rotary_emb(x, positions)
    own, masks = ancestry.visible(), dict[int, Tensor]()  # layers that saw the same tokens share a mask
    for layer, cache in zip(llm.model.layers, state.caches, strict=True):
        tokens_seen = cache.valid.shape[1]
        if id(cache.valid) not in masks:
            prompt = cache.valid[:, None].expand(-1, tokens.shape[1], -1)
            masks[id(cache.valid)] = torch.cat([prompt, own], dim=-1)
        end = tokens_seen + own.shape[-1]
        x = _decode_layer(layer, x, cos, sin, cache, slice(end - tokens.shape[1], end), masks[id(cache.valid)])
    return llm.lm_head(llm.model.norm(x)).float()


def _decode_layer(
    layer: Any, x: Tensor, cos: Tensor, sin: Tensor, cache: LayerCache, places: slice, visible: Tensor
) -> Tensor:
    q, k, v = project(layer, x, cos, sin)
    cache.keys[:, places], cache.values[:, places] = k, v
    seen_k, seen_v = (part[:, : places.stop] for part in (cache.keys, cache.values))
    return finish_layer(layer, x, beam_attention(q, seen_k, seen_v, visible))
