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

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from fast3d_core.config import GenerationConfig
from fast3d_core.plan import Plan
from fast3d_core.vicuna.attention import backend, prefill_attention, prefill_backend, row_weights
from fast3d_core.vicuna.cache import Caches, Layout
from fast3d_core.vicuna.decoding import Decoder
from fast3d_core.vicuna.layers import fuse
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
        lengths: (samples,) int64, of the unpruned prompts: the position of the first new token.
        settings: what room was made for.
    """

    logits: Tensor
    layouts: list[Layout]
    kept: list[Tensor]
    lengths: Tensor
    settings: GenerationConfig


@dataclass(frozen=True)
class _Rows:
    """What a run of layers computes and where that stands in their caches. All of it is on the device before the first
    layer runs: what comes later waits for those before.

    Attributes:
        layout: of their caches; queries: how many rows of each sample they compute, always its last ones.
        places: (rows,) int64, where in the cache the computed rows go.
        stay: of the rows of whole prompts those that are computed; None for all.
        given: scene, its rows, and where in the cache these go: what is not computed but known.
    """

    layout: Layout
    queries: Packing
    places: Tensor
    stay: Tensor | None
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
        self.layers, self._head = fuse(llm)
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
            decoder = Decoder(self._llm, self.layers, self._head, self._caches, *key)
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
        known = [prompt.shared if reuse_scene else 0 for prompt in prompts]
        kept = [plan.kept for plan in plans]
        runs = {0: self._rows(prompts, [None] * len(prompts), scenes, settings)} if drop_at else {}
        if all(offsets is not None for offsets in kept):
            runs[drop_at] = self._rows(prompts, kept, scenes, settings)
        lengths = torch.tensor([len(prompt) for prompt in prompts]).to(self._llm.device)
        last = Packing([1] * len(prompts), self._llm.device)
        cos, sin = self._positions([np.arange(n, len(prompt)) for prompt, n in zip(prompts, known, strict=True)])
        x = torch.cat([prompt.embeds[n:] for prompt, n in zip(prompts, known, strict=True)])
        layouts = []
        for i, layer in enumerate(self.layers):
            if i in (0, drop_at):
                rows = runs[i] if i in runs else self._rows(prompts, kept, scenes, settings)
                if rows.stay is not None:
                    x, cos, sin = x[rows.stay], cos[rows.stay], sin[rows.stay]
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
                x, q, queries = x[queries.last], q[queries.last], last
            x = layer.finish(x, prefill_attention(q, keys, values, queries, rows.layout))
        return Prefilled(self._head.logits(x), layouts, kept, lengths, settings)  # type: ignore[arg-type]

    def _rows(
        self,
        prompts: Sequence[Prompt],
        kept: Sequence[Tensor | None],
        scenes: "list[_SceneRows] | None",
        settings: GenerationConfig,
    ) -> _Rows:
        """For layers that see these visual tokens of each prompt; all of them where None."""
        device = self._llm.device
        tokens = [_tokens(prompt, offsets) for prompt, offsets in zip(prompts, kept, strict=True)]
        counts = [len(one) for one in tokens]
        layout = Layout(Packing(counts, device), _room(settings), padded=self._padded)
        nothing = [0] * len(prompts)
        if scenes is None:
            begin = accumulate((len(prompt) for prompt in prompts), initial=0)
            stay = np.concatenate([first + one for first, one in zip(begin, tokens, strict=False)])
            return _Rows(
                layout,
                layout.prompts,
                layout.places(nothing, counts),
                torch.from_numpy(stay).to(device) if len(stay) < sum(len(prompt) for prompt in prompts) else None,
                [],
            )
        given = [len(one) - (len(prompt) - prompt.shared) for prompt, one in zip(prompts, tokens, strict=True)]
        parts = []
        for scene in {id(scene): scene for scene in scenes}.values():
            of = [i for i, one in enumerate(scenes) if one is scene]
            source = torch.from_numpy(np.concatenate([tokens[i][: given[i]] for i in of])).to(device)
            parts.append((scene, source, layout.places(nothing, [n if i in of else 0 for i, n in enumerate(given)])))
        queries = Packing([n - g for n, g in zip(counts, given, strict=True)], device)
        return _Rows(layout, queries, layout.places(given, counts), None, parts)

    def _fit(self, prompts: Sequence[Prompt], plans: Sequence[Plan], settings: GenerationConfig) -> None:
        """Makes room in the caches for a batch, and in the tables of positions."""
        full = [len(prompt) for prompt in prompts]
        short = [len(prompt) - prompt.visual + plan.count for prompt, plan in zip(prompts, plans, strict=True)]
        layouts = (Layout(Packing(n, self._llm.device), _room(settings), padded=self._padded) for n in (full, short))
        before, behind = (layout.rows for layout in layouts)
        longest = max(full) + settings.max_new_tokens
        if self._caches.fit([before if i < plans[0].layer else behind for i in range(len(self.layers))]):
            self._decoders.clear()  # they know where the buffers were
        if longest > len(self._cos):
            places = torch.arange(-(-longest // 1024) * 1024, device=self._llm.device)[None]
            self._cos, self._sin = (t[0].to(self._cos) for t in self._llm.model.rotary_emb(self._cos, places))
            self._decoders.clear()

    def _positions(self, places: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Rotary tables (rows, head_dim) of these positions."""
        rows = torch.from_numpy(np.concatenate(places)).to(self._cos.device)
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
        cos, sin = self._positions([np.arange(length) for length in lengths])
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


def _room(settings: GenerationConfig) -> int:
    """Rows of a sample's generated tokens; the last token of an answer is never read."""
    return settings.beams * (settings.max_new_tokens - 1)


def _choose(plan: Plan, prompt: Prompt, row: Tensor) -> Tensor | None:
    return plan.resolve(row[prompt.visual_start : prompt.visual_start + prompt.visual]) if plan.choose else plan.kept


def _tokens(prompt: Prompt, kept: Tensor | None) -> np.ndarray:
    """The prompt's tokens without the visual ones that are not kept."""
    if kept is None:
        return np.arange(len(prompt))
    start, end = prompt.visual_start, prompt.visual_start + prompt.visual
    return np.concatenate([np.arange(start), start + kept.cpu().numpy(), np.arange(end, len(prompt))])
