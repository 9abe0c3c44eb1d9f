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
    kind = GreedySearch if beams == 1 else BeamSearch
    search = kind(len(prompts), settings, bos, eos, state.logits.device)
    decoding = Decoding(llm, state, search)
    for step in range(1, settings.max_new_tokens):
        if search.finished:
            break
        decoding.step(step)
    steps = search.steps.tolist()
    return [
        Generation(ids, score, n, kept) for (ids, score), n, kept in zip(search.best(), steps, state.kept, strict=True)
    ]


class Decoding:
    """A batch behind its prompts. A step reads and writes the same tensors, whatever its number.

    Args:
        state: whose caches have room for all tokens to come.
        search: that has seen nothing yet.
    """

    def __init__(self, llm: LlamaForCausalLM, state: Prefilled, search: BeamSearch | GreedySearch):
        self._llm, self._caches, self._lengths, self._search = llm, state.caches, state.lengths, search
        self._tokens = search.advance(state.logits[:, None])[0].clone()
        self.ancestry = Ancestry(search.ids)

    def step(self, upto: int) -> None:
        """One more token for every beam; `upto` is at least how many tokens a beam has, and bounds what is read."""
        number = self._search.length - 1  # of tokens that a beam has; the last of them is read now
        x = self._llm.model.embed_tokens(self._tokens)
        cos, sin = self._llm.model.rotary_emb(x, (self._lengths + number - 1)[:, None].expand_as(self._tokens))
        self.ancestry.grow(number)
        beams = self._tokens.shape[1]
        places = (number - 1) * beams + self.ancestry.beams  # behind the prompts
        own, masks = self.ancestry.visible(number, upto), dict[int, Tensor]()  # layers that saw the same share a mask
        for layer, cache in zip(self._llm.model.layers, self._caches, strict=True):
            if id(cache.valid) not in masks:
                prompt = cache.valid[:, None].expand(-1, beams, -1)
                masks[id(cache.valid)] = torch.cat([prompt, own], dim=-1)
            x = _decode_layer(layer, x, cos, sin, cache, cache.valid.shape[1] + places, masks[id(cache.valid)])
        tokens, sources = self._search.advance(self._llm.lm_head(self._llm.model.norm(x)).float())
        self._tokens.copy_(tokens)
        if sources is not None:
            self.ancestry.follow(sources)


class Ancestry:
    """Which beam each generated token of a beam was written by: so beams are followed without moving a key or value.

    Attributes:
        slots: (samples, beams, tokens), the beam under which a token stands in the caches.
        beams: (beams,) their numbers.
    """

    def __init__(self, ids: Tensor):
        """For as many samples, beams and tokens as `ids` has."""
        self.beams, self._places = (torch.arange(count, device=ids.device) for count in ids.shape[1:])
        self.slots = torch.zeros_like(ids)

    def grow(self, number: Tensor) -> None:
        """Every beam writes its token of that number, () int64 from 1."""
        self.slots.copy_(torch.where(self._places == number - 1, self.beams[:, None], self.slots))

    def follow(self, sources: Tensor) -> None:
        """Every beam goes on from the beam `sources` (samples, beams)."""
        self.slots.copy_(self.slots.gather(1, sources[..., None].expand_as(self.slots)))

    def visible(self, number: Tensor, upto: int) -> Tensor:
        """(samples, beams, upto x beams) bool, which of the generated tokens in the caches are a beam's own."""
        own = self.slots[:, :, :upto, None] == self.beams
        return (own & (self._places[:upto, None] < number)).flatten(2)


def _decode_layer(
    layer: Any, x: Tensor, cos: Tensor, sin: Tensor, cache: LayerCache, places: Tensor, visible: Tensor
) -> Tensor:
    q, k, v = project(layer, x, cos, sin)
    cache.keys.index_copy_(1, places, k)
    cache.values.index_copy_(1, places, v)
    read = visible.shape[-1]
    return finish_layer(layer, x, beam_attention(q, cache.keys[:, :read], cache.values[:, :read], visible))
