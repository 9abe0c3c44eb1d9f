"""Keys and values of a batch: one set a sample, whatever the number of beams; nothing in it is ever moved.

A layer keeps rows of just the tokens that it saw. Behind the prompts there is room for generated tokens: every beam's
of the first step, every beam's of the second, ... A `Layout` says which row is whose. The buffers stay where they are
from batch to batch, so that a decoding step, once captured as a CUDA graph, serves all of them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fast3d_core.llm.engine.packing import Packing

GROWTH = 1.125
"""Buffers that are too small grow beyond what was asked for, by this factor, so that they seldom do."""


def rows_needed(lengths: Sequence[int], room: int, *, padded: bool) -> int:
    """Rows of a cache for prompts of these lengths, with room behind each."""
    return len(lengths) * (max(lengths) + room) if padded else sum(lengths) + len(lengths) * room


class Layout:
    """Where the samples' rows stand in a cache.

    Packed, prompts stand one behind another, and the room behind all of them. Padded, every sample has its room behind
    the longest prompt's length, so that the cache is a (samples, stride, ...) tensor, too.

    Attributes:
        prompts: the rows that each sample's prompt has; room: rows for generated tokens, a sample.
        rows: of the cache, in all.
        bounds: (3, samples) int32: a sample's first prompt row, the row behind its last, its first row for new tokens.
    """

    def __init__(self, prompts: Packing, room: int, *, padded: bool):
        self.prompts, self.room, self.padded = prompts, room, padded
        self._stride = prompts.longest + room
        lengths, numbers = np.array(prompts.lengths), np.arange(len(prompts.lengths))
        self._begin = numbers * self._stride if padded else lengths.cumsum() - lengths
        new = self._begin + prompts.longest if padded else prompts.total + numbers * room
        self.rows = rows_needed(prompts.lengths, room, padded=padded)
        bounds = np.stack([self._begin, self._begin + lengths, new]).astype(np.int32)
        self.bounds = torch.from_numpy(bounds).to(prompts.device)

    def places(self, first: Sequence[int], behind: Sequence[int]) -> Tensor:
        """(sum of counts,) int64: rows of the prompt tokens `first` to before `behind` of each sample."""
        spans = [np.arange(b + i, b + j) for b, i, j in zip(self._begin.tolist(), first, behind, strict=True)]
        return torch.from_numpy(np.concatenate(spans)).to(self.prompts.device)

    def view(self, rows: Tensor, new: int = 0) -> Tensor:
        """(samples, longest + new, ...): prompts, right-padded, and the first `new` rows of the room.

        What stands in padding is arbitrary but finite. Only padded caches show their room.
        """
        if not self.padded:
            assert not new
            return self.prompts.pad(rows[: self.prompts.total])
        return rows[: self.rows].unflatten(0, (-1, self._stride))[:, : self.prompts.longest + new]


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
        """Whether there is room for so many rows in each layer."""
        return all(len(buffer) >= n for buffers in self.both for buffer, n in zip(buffers, rows, strict=True))

    def fit(self, rows: Sequence[int]) -> None:
        """Makes that room; content is lost. What is too small goes first, so that both need not fit the memory."""
        small = [i for i, count in enumerate(rows) if min(len(self.keys[i]), len(self.values[i])) < count]
        for buffers in self.both:
            for i in small:
                buffers[i] = buffers[i].new_zeros(0, *self._row)
        for buffers in self.both:
            for i in small:
                buffers[i] = buffers[i].new_zeros(int(rows[i] * GROWTH), *self._row)

    def forget(self, rows: int | None = None) -> None:
        """Zeros in the first rows, or everywhere: where numbers may stand that are not finite."""
        for buffers in self.both:
            for buffer in buffers:
                buffer[:rows].zero_()
