"""The fast engine: pruned tokens are really dropped, and nothing is computed or stored for them from then on.

Prefill computes each prompt once, packed, whatever the number of beams. Every layer keeps keys and values of just the
tokens that it saw; a sample's beams share them. Generated tokens stand behind them, those of all beams, and a beam sees
its own; so nothing is ever copied or reordered. Kept tokens keep their original positions, and the first new token
stands behind the unpruned prompt, so dropping equals masking.

With `reuse_prefix` the tokens before the question, which do not depend on it, are computed once a scene, and a question
finds their keys and values in the prefix cache. That is not the published computation: there, a kept token has not seen
the pruned ones in the layers from its stage on; here it has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fast3d_core.llm.engine.backend import Backend, choose
from fast3d_core.llm.engine.cache import Caches, Layout, rows_needed
from fast3d_core.llm.engine.decode import Decoder
from fast3d_core.llm.engine.layers import fuse
from fast3d_core.llm.engine.packing import Packing
from fast3d_core.llm.engine.prefill import Prefill, PrefillBatch
from fast3d_core.llm.engine.prefix_cache import PrefixCache
from fast3d_core.llm.engine.runs import Kept, Run, Runs
from fast3d_core.llm.engine.selection import Selection, boundaries, check_cached, known
from fast3d_core.llm.families import Llm, check_window
from fast3d_core.llm.generation import Generation, GenerationConfig, Prompt, check_beams, not_finite
from fast3d_core.llm.weights import shape_of
from fast3d_core.plan import Plan
from fast3d_core.runtime.devices import on

_DECODERS_KEPT = 8  # a run's batches are of one size, but for the last of every dataset, of which there are five


@dataclass
class Prefilled:
    """A batch of prompts after prefill; their keys and values are in the engine, until its next prefill.

    Attributes:
        logits: (samples, vocab) float32 for the first new token.
        layouts: where each layer's cache has what.
        plans: that were carried out; kept: what each of their stages kept, per sample.
        lengths: (samples,) int64, of the unpruned prompts: the position of the first new token.
        settings: for which there are decode slots.
    """

    logits: Tensor
    layouts: list[Layout]
    plans: Sequence[Plan]
    kept: list[Kept]
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
        self._decoders: dict[tuple[int, GenerationConfig, int, int], Decoder] = {}  # the one used longest ago is first
        self._prefixes = PrefixCache(self._make_caches())
        empty = torch.empty(0, shape.head_dim, dtype=dtype, device=device)
        self._rope = empty, empty
        self._prefill = self._new_prefill()

    def release(self) -> None:
        """Frees buffers, captured steps and cached prefixes; they are rebuilt where they are needed."""
        self._decoders.clear()
        self._prefill.clear()
        self._prefixes = PrefixCache(self._make_caches())
        self._caches = self._make_caches()
        self._prefill = self._new_prefill()

    def is_cached(self, prompt: Prompt) -> bool:
        """Whether `reuse_prefix` finds what stands before the question in the prefix cache."""
        return prompt.prefix is not None and prompt.prefix in self._prefixes

    def generate(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        bos: int,
        eos: int,
        reuse_prefix: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Generation]:
        """Answers to a batch of prompts, by beam search, or by greedy search where `settings.beams` is 1.

        Args:
            meanwhile: called when prefill is launched. What it starts in another thread does not delay the launching,
                which needs Python, and may run while the GPU decodes.

        Raises: see `prefill` and `decode`.
        """
        state = self.prefill(prompts, plans, settings, reuse_prefix)
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
            answers = decoder.run(state.logits, state.layouts, state.lengths, self._rope)
        if answers is None:
            if self._padded:
                self._caches.clear()  # attention gives padding no weight, but nothing times NaN is NaN
            raise not_finite(self._llm.dtype)
        return [
            Generation(*answer, plan.visual, tuple(zip((stage.layer for stage in plan.stages), kept, strict=True)))
            for answer, plan, kept in zip(answers, state.plans, state.kept, strict=True)
        ]

    @torch.inference_mode()
    def prefill(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        reuse_prefix: bool = False,
    ) -> Prefilled:
        """Computes the prompts. Their lengths, and their plans' stages, in number and layer, may differ.

        Raises:
            PlanError: see `Plan.check_fit` and `Plan.checked`, and with `reuse_prefix` `selection.check_cached`.
            UsageError: see `check_beams`.
            DataError: see `check_window`.
        """
        check_beams(settings, self._llm.config.vocab_size)
        check_window(self._llm.config, max(map(len, prompts)), settings.max_new_tokens)
        for plan, prompt in zip(plans, prompts, strict=True):
            plan.check_fit(len(self.layers), prompt.visual, len(prompt) - prompt.visual_start - prompt.visual)
            if reuse_prefix:
                check_cached(prompt, plan)
        prefixes = [prompt.prefix for prompt in prompts if reuse_prefix and prompt.prefix is not None]
        self._fit(prompts, plans, settings, prefixes)
        self._fill_prefix_cache(prefixes)
        first_rows = [self._prefixes.first_row(prefix) for prefix in prefixes] if reuse_prefix else None
        runs = Runs(prompts, _decode_slots(settings), self._llm.device, first_rows, padded=self._padded)
        batch = self._batch(prompts, plans, runs, [prompt.shared if reuse_prefix else 0 for prompt in prompts])
        lengths = torch.tensor([len(prompt) for prompt in prompts]).to(self._llm.device)
        with on(self._llm.device):
            done = self._prefill(batch)
        layouts = list[Layout]()
        for i in range(len(self.layers)):
            layouts.append(done.runs[i].layout if i in done.runs else layouts[-1])
        return Prefilled(done.logits, layouts, plans, done.kept, lengths, settings)

    def _batch(
        self, prompts: Sequence[Prompt], plans: Sequence[Plan], make: Runs, cached: Sequence[int]
    ) -> PrefillBatch:
        """What prefill computes; `cached` are the first tokens of each prompt that it does not, as they are cached."""
        layers, kept, runs = boundaries(plans), [Kept()] * len(prompts), dict[int, Run]()
        for layer in layers:
            now = known(plans, layer, kept)
            if now is None:
                break
            runs[layer] = make(kept, now)
            kept = now
        waiting = layers[len(runs) :]
        positions = np.concatenate([np.arange(n, len(prompt)) for prompt, n in zip(prompts, cached, strict=True)])
        return PrefillBatch(
            torch.cat([prompt.embeds[n:] for prompt, n in zip(prompts, cached, strict=True)]),
            torch.from_numpy(positions).to(self._llm.device),
            runs,
            Packing([1] * len(prompts), self._llm.device),
            kept,
            Selection(prompts, plans, waiting, make) if waiting else None,
        )

    def _fit(
        self,
        prompts: Sequence[Prompt],
        plans: Sequence[Plan],
        settings: GenerationConfig,
        prefixes: Sequence[Tensor],
    ) -> None:
        """Lets the caches, the rope and the prefix cache grow to what a batch needs."""
        counts = list(zip(*(plan.counts(len(self.layers)) for plan in plans), strict=True))  # of each layer
        prefix = max((1 + len(prefix) for prefix in prefixes), default=0)  # goes into the caches before the batch
        cuts, rows = boundaries(plans), list[int]()
        for i, of_layer in enumerate(counts):
            if i in cuts:
                lengths = [len(prompt) - prompt.visual + n for prompt, n in zip(prompts, of_layer, strict=True)]
                # One more row, for padding.
                needed = 1 + rows_needed(lengths, _decode_slots(settings), padded=self._padded)
            rows.append(max(prefix, needed))
        positions = max(map(len, prompts)) + settings.max_new_tokens
        if prefixes and self._prefixes.fit(list({id(prefix): prefix for prefix in prefixes}.values())):
            self._prefill.clear()  # captured graphs hold the old buffers
        if self._caches.hold(rows) and positions <= len(self._rope[0]):
            return
        self._decoders.clear()
        self._prefill.clear()
        self._caches.fit(rows)
        if positions > len(self._rope[0]):
            numbers = torch.arange(-(-positions // 1024) * 1024, device=self._llm.device)[None]
            cos, sin = (t[0].to(self._llm.dtype) for t in self._llm.model.rotary_emb(self._rope[0], numbers))
            self._rope = cos, sin
        self._prefill = self._new_prefill()

    def _new_prefill(self) -> Prefill:
        graphs = self._backend.captures and not self._padded
        weights, caches = (self.layers, self._head), (self._caches, self._prefixes.caches)
        return Prefill(self._backend, *weights, *caches, self._rope, graphs=graphs)

    def _fill_prefix_cache(self, prefixes: Sequence[Tensor]) -> None:
        """Computes those that are not cached, one after another: each is enough to keep a GPU busy."""
        for prefix in prefixes:
            if prefix in self._prefixes:
                continue
            prompt, plan = Prompt(prefix, 0, 0), Plan(0)
            with on(self._llm.device):
                self._prefill(self._batch([prompt], [plan], Runs([prompt], 0, prefix.device, padded=self._padded), [0]))
            self._prefixes.keep(prefix, self._caches)
            if self._padded:
                self._caches.clear(len(prefix))  # else they would be padding of others, and must be finite there


def _decode_slots(settings: GenerationConfig) -> int:
    """Rows of a sample's generated tokens; the last token of an answer is never computed on."""
    return settings.beams * (settings.max_new_tokens - 1)
