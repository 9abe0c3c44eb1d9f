"""Runs of layers: a batch's layers, cut where a plan of one of its samples has a stage.

From one boundary to the next, every layer sees the same tokens of every sample, so all of them share one `Run`: which
rows are computed, and where their keys and values go. A sample without a stage at a boundary keeps what it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fast3d_core.llm.engine.cache import Layout, PromptRows
from fast3d_core.llm.engine.packing import Packing, Seqlens
from fast3d_core.llm.generation import Prompt

Kept = tuple[Tensor, ...]
"""The offsets that each stage of a sample's plan has kept so far, (count,) int64 on the CPU; () before the first."""


@dataclass(frozen=True)
class RunTensors:
    """What the layers of a run compute with: tensors on the device, so that captured layers can be replayed on others.

    Attributes:
        layout: of the layers' caches; queries: the rows of each sample that are computed, always its last ones.
        slot_mapping: (rows,) int64, where in the cache the keys and values of the computed rows go.
        keep_index: (rows,) int64, which rows of the run before are computed on; None for all of them.
        cached: what is copied and not computed: rows of the prefix cache, and where in the cache they go, (rows,) int64
            each.
    """

    layout: PromptRows
    queries: Seqlens
    slot_mapping: Tensor
    keep_index: Tensor | None = None
    cached: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Run(RunTensors):
    """The same, with lengths that the host knows. All of it is on the device before its first layer runs."""

    layout: Layout
    queries: Packing


class Runs:
    """Makes the runs of a batch.

    Args:
        decode_slots: rows for generated tokens, of each sample; padded: see `Layout`.
        first_rows: where each prompt's prefix begins in the prefix cache; None where prompts are computed whole.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        decode_slots: int,
        device: torch.device,
        first_rows: Sequence[int] | None = None,
        *,
        padded: bool,
    ):
        self._prompts, self._first_rows = prompts, first_rows
        self._decode_slots, self._device, self._padded = decode_slots, device, padded

    def __call__(self, before: Sequence[Kept], now: Sequence[Kept]) -> Run:
        """The run whose layers see what is kept `now`, behind one, or embeddings, with what was kept `before`."""
        tokens = [_tokens(prompt, kept) for prompt, kept in zip(self._prompts, now, strict=True)]
        counts, nothing = [len(one) for one in tokens], [0] * len(tokens)
        layout = Layout(Packing(counts, self._device), self._decode_slots, padded=self._padded)
        if self._first_rows is None:
            keep_index = self._keep_index(tokens, before, now)
            return Run(layout, layout.prompts, layout.slot_mapping(nothing, counts), keep_index)
        new = [len(prompt) - prompt.shared for prompt in self._prompts]
        cached = [count - n for count, n in zip(counts, new, strict=True)]
        source = [first + one[:n] for first, one, n in zip(self._first_rows, tokens, cached, strict=True)]
        copied = torch.from_numpy(np.concatenate(source)).to(self._device), layout.slot_mapping(nothing, cached)
        return Run(layout, Packing(new, self._device), layout.slot_mapping(cached, counts), None, copied)

    def _keep_index(self, tokens: list[np.ndarray], before: Sequence[Kept], now: Sequence[Kept]) -> Tensor | None:
        rows, first = [], 0
        for prompt, there, old, new in zip(self._prompts, tokens, before, now, strict=True):
            had = _tokens(prompt, old)
            rows.append(first + (np.arange(len(had)) if new is old else np.searchsorted(had, there)))
            first += len(had)
        if sum(map(len, rows)) == first:
            return None
        return torch.from_numpy(np.concatenate(rows)).to(self._device)


def _tokens(prompt: Prompt, kept: Kept) -> np.ndarray:
    """The prompt's tokens without the visual ones that are not kept."""
    if not kept:
        return np.arange(len(prompt))
    start, end = prompt.visual_start, prompt.visual_start + prompt.visual
    return np.concatenate([np.arange(start), start + kept[-1].numpy(), np.arange(end, len(prompt))])
