"""The fast engine: pruned tokens are really dropped, and nothing is computed or stored for them from layer K on.

Prefill reads each prompt once, packed, whatever the number of beams. Every layer keeps keys and values of just the
tokens that it saw; a sample's beams share them. Generated tokens stand behind them, those of all beams, and a beam sees
its own; so nothing is ever copied or reordered. Kept tokens keep their original positions, and the first new token
stands behind the unpruned prompt, so dropping equals masking.

With `reuse_scene` the tokens before the question, which do not depend on it, are read once a scene, and a question
reads their keys and values. That is not the published computation: there, a kept token of layers >= K has not seen the
pruned ones; here it has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from fast3d_core.errors import UsageError
from fast3d_core.llm.engine.backend import Backend, choose
from fast3d_core.llm.engine.cache import Caches, Layout, rows_needed
from fast3d_core.llm.engine.decode import Decoder
from fast3d_core.llm.engine.layers import fuse
from fast3d_core.llm.engine.packing import Packing
from fast3d_core.llm.engine.prefill import Reader, Reading, Rows
from fast3d_core.llm.engine.prefix_cache import SceneStore
from fast3d_core.llm.families import Llm, check_window
from fast3d_core.llm.generation import Generation, GenerationConfig, Prompt, check_beams, not_finite
from fast3d_core.llm.weights import shape_of
from fast3d_core.plan import Plan, PlanError, View
from fast3d_core.runtime.devices import on

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


class FastEngine:
    """Answers batches of prompts. It keeps buffers and captured steps from batch to batch, for one batch at a time.

    Args:
        llm: works as before, but for its weights, which become views of the engine's (see `layers.fuse`).
        backend: what it computes with; the fastest by default.

    Attributes:
        attention: the libraries that attention runs on, in prefill and in decoding.
    """

    def __init__(self, llm: Llm, backend: Backend | None = None):
        self._llm = llm
        shape, dtype, device = shape_of(llm.config), llm.dtype, llm.device
        self._backend = backend or choose(device, dtype, shape)
        self.layers, self._head = fuse(llm, self._backend)
        self.attention, self._padded = self._backend.name, self._backend.padded
        self._make_caches = partial(Caches, shape.layers, shape.kv_heads, shape.head_dim, dtype, device)
        self._caches = self._make_caches()
        self._decoders: dict[tuple[int, GenerationConfig, int, int], Decoder] = {}  # oldest first
        self._scenes = SceneStore(self._make_caches())
        empty = torch.empty(0, shape.head_dim, dtype=dtype, device=device)
        self._tables = empty, empty
        self._reader = self._new_reader()

    def release(self) -> None:
        """Gives back buffers, captured steps and scenes; they are made anew where they are needed."""
        self._decoders.clear()
        self._reader.clear()
        self._scenes = SceneStore(self._make_caches())
        self._caches = self._make_caches()
        self._reader = self._new_reader()

    def knows(self, prompt: Prompt) -> bool:
        """Whether `reuse_scene` finds what stands before the question read."""
        return prompt.prefix is not None and prompt.prefix in self._scenes

    def generate(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        bos: int,
        eos: int,
        reuse_scene: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Generation]:
        """Answers to a batch of prompts, by beam search, or by greedy search where `settings.beams` is 1.

        Args:
            meanwhile: called when reading the prompts is launched. What it starts in another thread does not delay the
                launching, which needs Python, and may run while the GPU decodes.
        """
        state = self.prefill(prompts, plans, settings, reuse_scene)
        meanwhile()
        return self.decode(state, bos, eos)

    @torch.inference_mode()
    def decode(self, state: Prefilled, bos: int, eos: int) -> list[Generation]:
        """Answers to the prompts that were prefilled last.

        Raises `NotFiniteError` where the LLM computes NaN or infinity for one of them."""
        key = (len(state.lengths), state.settings, bos, eos)
        decoder = self._decoders.pop(key, None)
        if decoder is None:
            while len(self._decoders) >= _DECODERS_KEPT:
                del self._decoders[next(iter(self._decoders))]
            decoder = Decoder(self._llm, self._backend, self.layers, self._head, self._caches, *key)
        self._decoders[key] = decoder
        with on(self._llm.device):
            answers = decoder.run(state.logits, state.layouts, state.lengths, self._tables)
        if answers is None:
            if self._padded:
                self._caches.forget()  # attention gives padding no weight, but nothing times NaN is NaN
            raise not_finite(self._llm.dtype)
        return [
            Generation(ids, score, steps, len(kept), ((0, kept),))
            for (ids, score, steps), kept in zip(answers, state.kept, strict=True)
        ]

    @torch.inference_mode()
    def prefill(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        reuse_scene: bool = False,
    ) -> Prefilled:
        """Reads the prompts. All plans must have the same K; kept counts and prompt lengths may differ.

        Raises:
            PlanError: see `Plan.check_fit`; or plans that differ in K.
            UsageError: see `check_beams`.
            DataError: see `check_window`.
        """
        check_beams(settings, self._llm.config.vocab_size)
        check_window(self._llm.config, max(map(len, prompts)), settings.max_new_tokens)
        for plan, prompt in zip(plans, prompts, strict=True):
            plan.check_fit(len(self.layers), prompt.visual)
        drop_at = _only_stage(plans[0])[0]
        if any(_only_stage(plan)[0] != drop_at for plan in plans):
            raise PlanError(f"the plans of a batch drop tokens from one layer on, not {drop_at} and others")
        prefixes = [_prefix(prompt) for prompt in prompts] if reuse_scene else []
        self._fit(prompts, plans, settings, prefixes)
        self._read_scenes(prefixes)
        scenes = [self._scenes.first_row(prefix) for prefix in prefixes] if reuse_scene else None
        known = [prompt.shared if reuse_scene else 0 for prompt in prompts]
        kept = [_only_stage(plan)[1] for plan in plans]
        runs = {0: self._rows(prompts, [None] * len(prompts), scenes, settings)} if drop_at else {}
        choosing = any(one is None for one in kept)
        if not choosing:
            runs[drop_at] = self._rows(prompts, kept, scenes, settings)

        def choose(weights: Tensor) -> Rows:
            pairs = zip(plans, prompts, weights.mean(dim=1).cpu(), strict=True)
            kept[:] = [_choose(plan, prompt, row) for plan, prompt, row in pairs]
            runs[drop_at] = self._rows(prompts, kept, scenes, settings)
            return runs[drop_at]

        positions = np.concatenate([np.arange(n, len(prompt)) for prompt, n in zip(prompts, known, strict=True)])
        lengths = torch.tensor([len(prompt) for prompt in prompts]).to(self._llm.device)
        reading = Reading(
            torch.cat([prompt.embeds[n:] for prompt, n in zip(prompts, known, strict=True)]),
            torch.from_numpy(positions).to(self._llm.device),
            runs,
            Packing([1] * len(prompts), self._llm.device),
            drop_at,
            choose if choosing else None,
        )
        with on(self._llm.device):
            logits = self._reader(reading.without_dropped())
        layouts = [runs[0 if i < drop_at else drop_at].layout for i in range(len(self.layers))]
        return Prefilled(logits, layouts, kept, lengths, settings)  # type: ignore[arg-type]

    def _rows(
        self,
        prompts: Sequence[Prompt],
        kept: Sequence[Tensor | None],
        scenes: Sequence[int] | None,
        settings: GenerationConfig,
    ) -> Rows:
        """For layers that see these visual tokens of each prompt; all of them where None.

        Args:
            scenes: where each prompt's scene begins in the store; None where all of the prompt is read.
        """
        device = self._llm.device
        tokens = [_tokens(prompt, offsets) for prompt, offsets in zip(prompts, kept, strict=True)]
        counts = [len(one) for one in tokens]
        layout = Layout(Packing(counts, device), _room(settings), padded=self._padded)
        nothing = [0] * len(prompts)
        if scenes is None:
            begin = accumulate((len(prompt) for prompt in prompts), initial=0)
            stay = np.concatenate([first + one for first, one in zip(begin, tokens, strict=False)])
            return Rows(
                layout,
                layout.prompts,
                layout.places(nothing, counts),
                torch.from_numpy(stay).to(device) if len(stay) < sum(len(prompt) for prompt in prompts) else None,
            )
        given = [len(one) - (len(prompt) - prompt.shared) for prompt, one in zip(prompts, tokens, strict=True)]
        source = np.concatenate([first + one[:n] for first, one, n in zip(scenes, tokens, given, strict=True)])
        queries = Packing([n - g for n, g in zip(counts, given, strict=True)], device)
        copied = torch.from_numpy(source).to(device), layout.places(nothing, given)
        return Rows(layout, queries, layout.places(given, counts), None, copied)

    def _fit(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        prefixes: Sequence[Tensor],
    ) -> None:
        """Makes room in the caches for a batch, in the tables of positions, and for scenes to be reused."""
        full = [len(prompt) for prompt in prompts]
        short = [
            len(prompt) - prompt.visual + plan.counts(len(self.layers))[-1]
            for prompt, plan in zip(prompts, plans, strict=True)
        ]
        # One more row for what nobody reads.
        before, behind = (1 + rows_needed(n, _room(settings), padded=self._padded) for n in (full, short))
        scene = max((1 + len(prefix) for prefix in prefixes), default=0)  # is read before the batch, into its caches
        rows = [max(scene, before if i < _only_stage(plans[0])[0] else behind) for i in range(len(self.layers))]
        positions = max(full) + settings.max_new_tokens
        if prefixes and self._scenes.fit(list({id(prefix): prefix for prefix in prefixes}.values())):
            self._reader.clear()  # what was captured knows where things were
        if self._caches.hold(rows) and positions <= len(self._tables[0]):
            return
        self._decoders.clear()
        self._reader.clear()
        self._caches.fit(rows)
        if positions > len(self._tables[0]):
            places = torch.arange(-(-positions // 1024) * 1024, device=self._llm.device)[None]
            cos, sin = (t[0].to(self._llm.dtype) for t in self._llm.model.rotary_emb(self._tables[0], places))
            self._tables = cos, sin
        self._reader = self._new_reader()

    def _new_reader(self) -> Reader:
        graphs = self._backend.captures and not self._padded
        weights, caches = (self.layers, self._head), (self._caches, self._scenes.caches)
        return Reader(self._backend, *weights, *caches, self._tables, graphs=graphs)

    def _read_scenes(self, prefixes: Sequence[Tensor]) -> None:
        """Those that are not known, one after another: each is enough to read to keep a GPU busy."""
        for prefix in prefixes:
            if prefix in self._scenes:
                continue
            layout = Layout(Packing([len(prefix)], prefix.device), 0, padded=self._padded)
            places = layout.places([0], [len(prefix)])
            rows = {0: Rows(layout, layout.prompts, places)}
            x = prefix.clone()  # is computed in place
            with on(self._llm.device):
                self._reader(Reading(x, places, rows, Packing([1], prefix.device), 0))
            self._scenes.keep(prefix, self._caches)
            if self._padded:
                self._caches.forget(len(prefix))  # else they would be padding of others, and must be finite there


def _prefix(prompt: Prompt) -> Tensor:
    """What is read once a scene. Raises `UsageError` where the visual tokens do not stand in it."""
    if prompt.prefix is None or prompt.visual_start + prompt.visual > prompt.shared:
        raise UsageError(
            "reuse_scene reads a scene before the questions about it, but in these prompts the visual tokens stand "
            "behind the question; leave it out"
        )
    return prompt.prefix


def _room(settings: GenerationConfig) -> int:
    """Rows of a sample's generated tokens; the last token of an answer is never read."""
    return settings.beams * (settings.max_new_tokens - 1)


def _only_stage(plan: Plan) -> tuple[int, Tensor | None]:
    """Layer and offsets of the one stage that is carried out so far; None where it has to look first."""
    if len(plan.stages) > 1:
        raise PlanError("plans of more than one stage are not carried out yet")
    there = View(torch.arange(plan.visual))
    if not plan.stages:
        return 0, there.offsets
    return plan.stages[0].layer, None if plan.stages[0].waits else plan.resolve(0, there)


def _choose(plan: Plan, prompt: Prompt, row: Tensor) -> Tensor | None:
    last = row[prompt.visual_start : prompt.visual_start + prompt.visual]
    kept = _only_stage(plan)[1]
    return plan.resolve(0, View(torch.arange(plan.visual), last)) if kept is None else kept


def _tokens(prompt: Prompt, kept: Tensor | None) -> np.ndarray:
    """The prompt's tokens without the visual ones that are not kept."""
    if kept is None:
        return np.arange(len(prompt))
    start, end = prompt.visual_start, prompt.visual_start + prompt.visual
    return np.concatenate([np.arange(start), start + kept.cpu().numpy(), np.arange(end, len(prompt))])
