"""Decoding: one token after another for all beams of a batch, behind prompts that were prefilled.

A step reads and writes the same tensors, whatever its number, and counts on the device. On a GPU it is captured once as
a CUDA graph and replayed: launched from Python, a step of a 7B model would take ten times as long. Beam ancestry says
which generated tokens are a beam's own, so no key or value is moved.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fast3d_core.llm.engine.backend import Backend, DecodeView
from fast3d_core.llm.engine.beam import BeamSearch, GreedySearch
from fast3d_core.llm.engine.cache import Caches, Layout
from fast3d_core.llm.engine.layers import Head, Layer
from fast3d_core.llm.families import Llm
from fast3d_core.llm.generation import GenerationConfig
from fast3d_core.runtime.graphs import captured

_AHEAD = 2  # steps that are launched before the end of an earlier one is known, so the GPU never waits for the host


class Decoder:
    """Decodes batches of as many samples, one after another, under the same settings.

    Args:
        caches: the engine's; they may not be replaced while this is in use.
    """

    def __init__(
        self,
        llm: Llm,
        backend: Backend,
        layers: Sequence[Layer],
        head: Head,
        caches: Caches,
        samples: int,
        settings: GenerationConfig,
        bos: int,
        eos: int,
    ):
        device = llm.device
        self._embed = llm.model.embed_tokens
        self._layers, self._head, self._caches = layers, head, caches
        self._settings = settings
        kind = GreedySearch if settings.beams == 1 else BeamSearch
        self.search = kind(samples, settings, bos, eos, device)
        self.ancestry = BeamAncestry(self.search.ids)
        self._tokens = self.search.ids.new_zeros(samples, settings.beams)
        self._lengths = self._tokens.new_zeros(samples)
        self._bounds = torch.zeros(len(layers), 3, samples, dtype=torch.int32, device=device)
        self._finished = torch.zeros((), dtype=torch.bool, device=device)
        self._backend = backend
        self._known = torch.zeros(_AHEAD, dtype=torch.bool, pin_memory=backend.captures)
        self._warm = False
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(
        self, logits: Tensor, layouts: Sequence[Layout], lengths: Tensor, rope: tuple[Tensor, Tensor]
    ) -> list[tuple[list[int], float | None, int]] | None:
        """Token ids, score and number of steps of each sample; None where a logit of one was NaN or infinite.

        Args:
            logits: (samples, vocab) float32 for the first new token.
            layouts: of each layer's cache; lengths: (samples,) of the unpruned prompts.
            rope: cos and sin of all positions, (positions, head_dim); always the same tensors.
        """
        self._begin(logits, layouts, lengths, rope)
        if self._backend.captures:
            self._run_ahead()
        else:
            for number in range(1, self._settings.max_new_tokens):
                if self.search.finished:
                    break
                self.step(number)
        finite, steps = torch.stack([self.search.finite.long(), self.search.steps]).tolist()
        if not all(finite):
            return None
        return [(ids, score, count) for (ids, score), count in zip(self.search.best(), steps, strict=True)]

    def _begin(self, logits: Tensor, layouts: Sequence[Layout], lengths: Tensor, rope: tuple[Tensor, Tensor]) -> None:
        self._layouts, self._rope = layouts, rope
        self._bounds.copy_(torch.stack([layout.bounds for layout in layouts]))
        self._lengths.copy_(lengths)
        self.search.reset()
        self.ancestry.written_by.zero_()
        self._finished.fill_(False)
        self._tokens.copy_(self.search.advance(logits[:, None])[0])

    def _run_ahead(self) -> None:
        """All steps on the GPU, until one that is known to have finished everything."""
        events = [torch.cuda.Event() for _ in range(_AHEAD)]
        for number in range(1, self._settings.max_new_tokens):
            turn = number % _AHEAD
            if number > _AHEAD:
                events[turn].synchronize()
                if self._known[turn]:
                    break
            self._launch()
            self._known[turn].copy_(self._finished, non_blocking=True)
            events[turn].record()

    def _launch(self) -> None:
        """A step: the first one from Python, which compiles what has to be, then captured, then replayed."""
        most = self._settings.max_new_tokens - 1
        if not self._warm:
            self.step(most)
            self._warm = True
            return
        if self._graph is None:
            self._graph, _ = captured(lambda: self.step(most))
        self._graph.replay()

    def step(self, max_generated: int) -> None:
        """One more token for every beam.

        Args:
            max_generated: at least how many tokens a beam has: of so many torch's attention computes the weights. The
                kernel computes those that there are.
        """
        search, (cos, sin) = self.search, self._rope
        samples, beams = self._tokens.shape
        number = search.length - 1  # of tokens that a beam has; the last of them is read now
        # A graph's shapes stay, and its attention passes over samples that are done; else these are left out.
        alive: Any = slice(None) if self._backend.decodes_in_place else (~search.done).nonzero()[:, 0]
        x = self._embed(self._tokens[alive]).flatten(0, 1)
        positions = (self._lengths[alive] + number - 1).repeat_interleave(beams)
        cos, sin = cos.index_select(0, positions), sin.index_select(0, positions)
        self.ancestry.grow(number)
        first = self._bounds[:, 2, alive].long() + (number - 1) * beams
        slot_mapping = (first[..., None] + self.ancestry.beams).flatten(1)  # (layers, samples x beams)
        views = self._views(number, max_generated, alive)
        for i, layer in enumerate(self._layers):
            keys, values = self._caches.keys[i], self._caches.values[i]
            q = layer.queries(x, cos, sin, keys, values, slot_mapping[i]).unflatten(0, (-1, beams))
            attended = self._backend.decode_attention(q, keys, values, views[i])
            x = layer.finish(x, attended.flatten(0, 1))
        logits = self._head.logits(x).unflatten(0, (-1, beams))
        if len(logits) < samples:
            logits = logits.new_zeros(samples, *logits.shape[1:]).index_copy_(0, alive, logits)
        tokens, sources = search.advance(logits)
        self._tokens.copy_(tokens)
        if sources is not None:
            self.ancestry.follow(sources)
        self._finished.copy_(search.done.all())

    def _views(self, number: Tensor, max_generated: int, alive: Any) -> list[DecodeView]:
        """What the newest token of each beam sees in each layer."""
        common = (self.ancestry.written_by, number, self.search.done)
        pairs = list(zip(self._layouts, self._bounds, strict=True))
        if self._backend.decodes_in_place:
            return [DecodeView(layout, bounds, *common) for layout, bounds in pairs]
        masks, samples = self._masks(number, max_generated, alive), alive.tolist()
        return [
            DecodeView(layout, bounds, *common, samples, masks[id(layout)], max_generated) for layout, bounds in pairs
        ]

    def _masks(self, number: Tensor, max_generated: int, samples: Tensor) -> dict[int, Tensor]:
        """By layout what each beam of these samples sees, (samples, beams, max_seqlen + max_generated x beams) bool."""
        own = self.ancestry.visible(number, max_generated)[samples]
        return {
            id(layout): torch.cat([layout.prompts.valid[samples, None].expand(-1, own.shape[1], -1), own], dim=-1)
            for layout in {id(layout): layout for layout in self._layouts}.values()
        }


class BeamAncestry:
    """Which beam each generated token of a beam was written by: so beams are followed without moving a key or value.

    Attributes:
        written_by: (samples, beams, tokens) int32, the beam under which a token stands in the caches.
        beams: (beams,) their numbers.
    """

    def __init__(self, ids: Tensor):
        """For as many samples, beams and tokens as `ids` has."""
        self.beams, self._numbers = (torch.arange(count, device=ids.device) for count in ids.shape[1:])
        self.written_by = torch.zeros_like(ids, dtype=torch.int32)

    def grow(self, number: Tensor) -> None:
        """Every beam writes its token of that number, () int64 from 1."""
        self.written_by.copy_(torch.where(self._numbers == number - 1, self.beams[:, None], self.written_by))

    def follow(self, sources: Tensor) -> None:
        """Every beam goes on from the beam `sources` (samples, beams)."""
        self.written_by.copy_(self.written_by.gather(1, sources[..., None].expand_as(self.written_by)))

    def visible(self, number: Tensor, max_generated: int) -> Tensor:
        """Which generated tokens in the caches are a beam's own, (samples, beams, max_generated x beams) bool."""
        own = self.written_by[:, :, :max_generated, None] == self.beams
        return (own & (self._numbers[:max_generated, None] < number)).flatten(2)
