"""The fast engine: pruned tokens are really dropped, and nothing is computed or stored for them from layer K on.

Prefill reads each prompt once, packed, whatever the number of beams. Every layer keeps keys and values of just the
tokens that it saw; a sample's beams share them. Generated tokens stand behind them, those of all beams, and a beam sees
its own; so nothing is ever copied or reordered. Kept tokens keep their original positions, and the first new token
stands behind the unpruned prompt, so dropping equals masking.

With `reuse_scene` the tokens before the question, which do not depend on it, are read once a scene, and a question
reads their keys and values. That is not the published computation: there, a kept token of layers >= K has not seen the
pruned ones; here it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LlamaForCausalLM

from fast3d_core.config import GenerationConfig
from fast3d_core.plan import Plan
from fast3d_core.vicuna.attention import backend, prefill_attention, prefill_backend, row_weights
from fast3d_core.vicuna.cache import Caches, Layout
from fast3d_core.vicuna.decoding import Decoder
from fast3d_core.vicuna.layers import Layer, fuse
from fast3d_core.vicuna.llm import Generation, Prompt, shape_of
from fast3d_core.vicuna.packing import Packing

_SCENES_KEPT = 8  # with `reuse_scene`; 180 MB each for Vicuna-7B in bf16
_DECODERS_KEPT = 8  # a run's batches are of one size, but for the last of every dataset


@dataclass
class Prefilled:
    """A batch of prompts after prefill; their keys and values are in the engine, until its next prefill.

    Attributes:
        logits: (samples, vocab) float32 for the first new token.
        layouts: where each layer's cache has what.
        kept: offsets of the visual tokens that layers >= K saw, per sample.
        lengths: unpruned prompt lengths, the position of the first new token.
        settings: what room was made for.
    """

    logits: Tensor
    layouts: list[Layout]
    kept: list[Tensor]
    lengths: list[int]
    settings: GenerationConfig


@dataclass(frozen=True)
class _Rows:
    """What a run of layers computes and where that stands in their caches.

    Attributes:
        layout: of their caches; queries: how many rows of each sample they compute, always its last ones.
        places: (rows,) int64, where in the cache the computed rows go.
        given: scene, its rows, and where in the cache these go: what is not computed but known.
    """

    layout: Layout
    queries: Packing
    places: Tensor
    given: "list[tuple[_SceneRows, Tensor, Tensor]]"


@dataclass(frozen=True)
class _SceneRows:
    """Keys and values of the tokens before the question, one a layer, (tokens, kv heads, head_dim)."""

    keys: list[Tensor]
    values: list[Tensor]


class FastEngine:
    """Answers batches of prompts. It keeps buffers and captured steps from batch to batch, for one batch at a time.

    Args:
        llm: works as before, but for its weights, which become views of the engine's (see `layers.fuse`).

    Attributes:
        attention: the libraries that attention runs on, in prefill and in decoding.
    """

    def __init__(self, llm: LlamaForCausalLM):
        self._llm = llm
        self.layers: list[Layer] = fuse(llm)
        shape, dtype, device = shape_of(llm.config), llm.dtype, llm.device
        self.attention = backend(device, dtype)
        self._padded = prefill_backend(device, dtype) == "sdpa"
        self._make_caches = partial(Caches, shape.layers, shape.kv_heads, shape.head_dim, dtype, device)
        self._caches = self._make_caches()
        self._decoders: dict[tuple[int, GenerationConfig, int, int], Decoder] = {}  # oldest first
        self._scenes: dict[int, tuple[Tensor, _SceneRows]] = {}  # by id of the prefix, oldest first
        self._cos = self._sin = torch.empty(0, shape.head_dim, dtype=dtype, device=device)

    def release(self) -> None:
        """Gives back buffers, captured steps and scenes; they are made anew where they are needed."""
        self._decoders.clear()
        self._scenes.clear()
        self._caches = self._make_caches()

    def generate(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        bos: int,
        eos: int,
        reuse_scene: bool = False,
    ) -> list[Generation]:
        """Answers to a batch of prompts, by beam search, or by greedy search where `settings.beams` is 1."""
        return self.decode(self.prefill(prompts, plans, settings, reuse_scene), bos, eos)

    @torch.inference_mode()
    def decode(self, state: Prefilled, bos: int, eos: int) -> list[Generation]:
        """Answers to the prompts that were prefilled last."""
        key = (len(state.lengths), state.settings, bos, eos)
        decoder = self._decoders.pop(key, None)
        if decoder is None:
            if len(self._decoders) == _DECODERS_KEPT:
                del self._decoders[next(iter(self._decoders))]
            decoder = Decoder(self._llm, self.layers, self._caches, *key)
        self._decoders[key] = decoder
        answers = decoder.run(state.logits, state.layouts, state.lengths, (self._cos, self._sin))
        return [
            Generation(ids, score, steps, kept) for (ids, score, steps), kept in zip(answers, state.kept, strict=True)
        ]

    @torch.inference_mode()
    def prefill(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        reuse_scene: bool = False,
    ) -> Prefilled:
        """Reads the prompts. All plans must have the same K; kept counts and prompt lengths may differ."""
        drop_at = plans[0].layer
        assert all(plan.layer == drop_at for plan in plans)
        self._fit(prompts, plans, settings)
        scenes = self._scene_rows(prompts) if reuse_scene else None
        skipped = [prompt.shared if reuse_scene else 0 for prompt in prompts]
        lengths = [len(prompt) for prompt in prompts]
        room = settings.beams * (settings.max_new_tokens - 1)
        x = torch.cat([prompt.embeds[skip:] for prompt, skip in zip(prompts, skipped, strict=True)])
        cos, sin = self._positions([torch.arange(s, n) for s, n in zip(skipped, lengths, strict=True)])
        kept = [plan.kept for plan in plans]
        layouts = []
        for i, layer in enumerate(self.layers):
            if i in (0, drop_at):
                rows = self._rows(prompts, kept if i == drop_at else [None] * len(prompts), scenes, room)
                if rows.queries.total < len(x):
                    stay = _kept_rows(prompts, kept).to(x.device)
                    x, cos, sin = x[stay], cos[stay], sin[stay]
            keys, values = self._caches.keys[i], self._caches.values[i]
            for scene, source, target in rows.given:
                keys.index_copy_(0, target, scene.keys[i].index_select(0, source))
                values.index_copy_(0, target, scene.values[i].index_select(0, source))
            layouts.append(rows.layout)
            q = layer.queries(x, cos, sin, keys, values, rows.places)
            if i == drop_at - 1 and any(plan.choose is not None for plan in plans):
                valid = rows.layout.prompts.valid
                weights = row_weights(q[rows.queries.last], rows.layout.view(keys), valid).mean(dim=1).cpu()
                kept = [_choose(plan, prompt, row) for plan, prompt, row in zip(plans, prompts, weights, strict=True)]
            queries = rows.queries
            if i == len(self.layers) - 1:  # nobody reads the other rows of the last layer
                x, q, queries = x[queries.last], q[queries.last], Packing([1] * len(prompts), x.device)
            x = layer.finish(x, prefill_attention(q, keys, values, queries, rows.layout))
        norm = self._llm.model.norm
        logits = self._llm.lm_head(functional.rms_norm(x, x.shape[1:], norm.weight, norm.variance_epsilon)).float()
        return Prefilled(logits, layouts, kept, lengths, settings)  # type: ignore[arg-type]

    def _rows(
        self,
        prompts: Sequence[Prompt],
        kept: Sequence[Tensor | None],
        scenes: "list[_SceneRows] | None",
        room: int,
    ) -> _Rows:
        """For layers that see these visual tokens of each prompt; all of them where None."""
        device = prompts[0].embeds.device
        dropped = [0 if k is None else p.visual - len(k) for p, k in zip(prompts, kept, strict=True)]
        counts = [len(p) - n for p, n in zip(prompts, dropped, strict=True)]
        given = [p.shared - n if scenes else 0 for p, n in zip(prompts, dropped, strict=True)]
        layout = Layout(Packing(counts, device), room, padded=self._padded)
        queries = Packing([n - g for n, g in zip(counts, given, strict=True)], device)
        if scenes is None:
            return _Rows(layout, queries, layout.places(given, counts), [])
        parts = []
        for scene in {id(scene): scene for scene in scenes}.values():
            of = [i for i, one in enumerate(scenes) if one is scene]
            source = torch.cat([_tokens(prompts[i], kept[i], prompts[i].shared) for i in of]).to(device)
            count = [given[i] if i in of else 0 for i in range(len(prompts))]
            parts.append((scene, source, layout.places([0] * len(prompts), count)))
        return _Rows(layout, queries, layout.places(given, counts), parts)

    def _fit(self, prompts: Sequence[Prompt], plans: Sequence[Plan], settings: GenerationConfig) -> None:
        """Makes room in the caches for a batch, and in the tables of positions."""
        room = settings.beams * (settings.max_new_tokens - 1)
        full = Packing([len(prompt) for prompt in prompts], self._llm.device)
        short = Packing([len(p) - p.visual + q.count for p, q in zip(prompts, plans, strict=True)], self._llm.device)
        before, behind = (Layout(packing, room, padded=self._padded).rows for packing in (full, short))
        longest = full.longest + settings.max_new_tokens
        if self._caches.fit([before if i < plans[0].layer else behind for i in range(len(self.layers))]):
            self._decoders.clear()  # they know where the buffers were
        if longest > len(self._cos):
            places = torch.arange(-(-longest // 1024) * 1024, device=self._llm.device)[None]
            self._cos, self._sin = (t[0].to(self._cos) for t in self._llm.model.rotary_emb(self._cos, places))
            self._decoders.clear()

    def _positions(self, places: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Rotary tables (rows, head_dim) of these positions."""
        rows = torch.cat(list(places)).to(self._cos.device)
        return self._cos[rows], self._sin[rows]

    def _scene_rows(self, prompts: Sequence[Prompt]) -> list[_SceneRows]:
        """Each prompt's scene, read if it is not known."""
        prefixes = [prompt.prefix for prompt in prompts if prompt.prefix is not None]
        assert len(prefixes) == len(prompts)
        if new := {id(prefix): prefix for prefix in prefixes if id(prefix) not in self._scenes}:
            self._read_scenes(list(new.values()))
        rows = [self._scenes[id(prefix)][1] for prefix in prefixes]
        for oldest in list(self._scenes)[:-_SCENES_KEPT]:
            del self._scenes[oldest]
        return rows

    def _read_scenes(self, prefixes: Sequence[Tensor]) -> None:
        """Keys and values of what stands before the questions."""
        x = torch.cat(list(prefixes))
        layout = Layout(Packing([len(prefix) for prefix in prefixes], x.device), 0, padded=False)
        lengths = layout.prompts.lengths
        places = torch.arange(len(x), device=x.device)
        cos, sin = self._positions([torch.arange(length) for length in lengths])
        rows = [_SceneRows([], []) for _ in prefixes]
        for i, layer in enumerate(self.layers):
            keys, values = (buffers[i].new_empty(len(x), *buffers[i].shape[1:]) for buffers in self._caches.both)
            q = layer.queries(x, cos, sin, keys, values, places)
            for one, k, v in zip(rows, keys.split(lengths), values.split(lengths), strict=True):
                one.keys.append(k)
                one.values.append(v)
            if i < len(self.layers) - 1:
                x = layer.finish(x, prefill_attention(q, keys, values, layout.prompts, layout))
        for prefix, one in zip(prefixes, rows, strict=True):
            self._scenes[id(prefix)] = (prefix, one)  # the prefix is kept, so that its id stays its own


def _choose(plan: Plan, prompt: Prompt, row: Tensor) -> Tensor | None:
    return plan.resolve(row[prompt.visual_start : prompt.visual_start + prompt.visual]) if plan.choose else plan.kept


def _kept_rows(prompts: Sequence[Prompt], kept: Sequence[Tensor | None]) -> Tensor:
    """Of the packed rows of whole prompts those that stay: the text, and the kept visual tokens."""
    begin = accumulate((len(prompt) for prompt in prompts), initial=0)
    parts = zip(prompts, kept, begin, strict=False)
    return torch.cat([first + _tokens(prompt, offsets, len(prompt)) for prompt, offsets, first in parts])


def _tokens(prompt: Prompt, kept: Tensor | None, behind: int) -> Tensor:
    """The prompt's tokens before `behind`, without the visual ones that are not kept."""
    if kept is None:
        return torch.arange(behind)
    start, end = prompt.visual_start, prompt.visual_start + prompt.visual
    return torch.cat([torch.arange(start), start + kept.cpu(), torch.arange(end, behind)])
