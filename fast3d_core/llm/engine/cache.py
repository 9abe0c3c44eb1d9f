"""Keys and values of a batch: one set a sample, whatever the number of beams; nothing in it is ever moved.

A layer keeps rows of just the tokens that it saw. Behind the prompts are the decode slots, rows for generated tokens:
every beam's of the first step, every beam's of the second, ... A `Layout` says which row is whose. The buffers stay
where they are from batch to batch, so that a decoding step, once captured as a CUDA graph, serves all of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fast3d_core.llm.engine.packing import Packing, Seqlens

GROWTH = 1.125
"""Buffers that are too small are made larger than what was asked for, by this factor: batches of a run differ by some
percent, and a buffer that is replaced invalidates every graph that was captured for it. Chosen, not measured."""


def rows_needed(lengths: Sequence[int], decode_slots: int, *, padded: bool) -> int:
    """Rows of a cache for prompts of these lengths, with so many decode slots for each."""
    return len(lengths) * (max(lengths) + decode_slots) if padded else sum(lengths) + len(lengths) * decode_slots


class PromptRows:
    """Packed prompts in a cache, from its first row on: all that a captured prefill has to know about a cache.

    Attributes:
        prompts: the rows that each sample's prompt has.
        padded: whether every sample has the same number of rows, see `Layout`.
    """

    def __init__(self, prompts: Seqlens):
        self.prompts, self.padded = prompts, False


class Layout(PromptRows):
    """Where the samples' rows are in a cache.

    Packed, prompts stand one behind another, and the decode slots behind all of them. Padded, every sample has its
    decode slots behind the longest prompt's length, so that the cache is a (samples, stride, ...) tensor, too.

    Attributes:
        prompts: the rows that each sample's prompt has; begin: a sample's first row; decode_slots: of each sample.
        rows: of the cache, in all.
        bounds: (3, samples) int32: a sample's first prompt row, the row behind its last, its first decode slot.
    """

    prompts: Packing

    def __init__(self, prompts: Packing, decode_slots: int, *, padded: bool):
        self.prompts, self.decode_slots, self.padded = prompts, decode_slots, padded
        self._stride = prompts.max_seqlen + decode_slots
        lengths, numbers = np.array(prompts.lengths), np.arange(len(prompts.lengths))
        begin = numbers * self._stride if padded else lengths.cumsum() - lengths
        new = begin + prompts.max_seqlen if padded else prompts.num_tokens + numbers * decode_slots
        self.begin: list[int] = begin.tolist()
        self.rows = rows_needed(prompts.lengths, decode_slots, padded=padded)
        bounds = np.stack([begin, begin + lengths, new]).astype(np.int32)
        self.bounds = torch.from_numpy(bounds).to(prompts.device)

    def slot_mapping(self, first: Sequence[int], behind: Sequence[int]) -> Tensor:
        """(sum of counts,) int64: rows of the prompt tokens `first` to before `behind` of each sample."""
        spans = [np.arange(b + i, b + j) for b, i, j in zip(self.begin, first, behind, strict=True)]
        return torch.from_numpy(np.concatenate(spans)).to(self.prompts.device)

    def view(self, rows: Tensor, new: int = 0) -> Tensor:
        """(samples, max_seqlen + new, ...): prompts, right-padded, and the first `new` decode slots.

        What padding holds is arbitrary but finite. Only padded caches show their decode slots.
        """
        if not self.padded:
            assert not new
            return self.prompts.pad(rows[: self.prompts.num_tokens])
        return rows[: self.rows].unflatten(0, (-1, self._stride))[:, : self.prompts.max_seqlen + new]


class Caches:
    """The buffers of all layers.

    Attributes:
        keys, values: one a layer, (rows, kv heads, head_dim), finite everywhere.
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device):
        self._row = (kv_heads, head_dim)
        empty = torch.zeros(0, kv_heads, head_dim, dtype=dtype, device=device)
        self.keys, self.values = [empty] * layers, [empty] * layers

    @property
    def both(self) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values."""
        return self.keys, self.values

    def hold(self, rows: Sequence[int]) -> bool:
        """Whether each layer's buffers have so many rows."""
        return all(len(buffer) >= n for buffers in self.both for buffer, n in zip(buffers, rows, strict=True))

    def fit(self, rows: Sequence[int]) -> None:
        """Grows the buffers to at least so many rows; their content is lost. Small ones are freed first, so that the
        old and the new buffer need not fit the memory together."""
        small = [i for i, count in enumerate(rows) if min(len(self.keys[i]), len(self.values[i])) < count]
        for buffers in self.both:
            for i in small:
                buffers[i] = buffers[i].new_zeros(0, *self._row)
        for buffers in self.both:
            for i in small:
                buffers[i] = buffers[i].new_zeros(int(rows[i] * GROWTH), *self._row)

    def clear(self, rows: int | None = None) -> None:
        """Writes zeros to the first rows, or everywhere: what is there may not be finite."""
        for buffers in self.both:
            for buffer in buffers:
                buffer[:rows].zero_()
