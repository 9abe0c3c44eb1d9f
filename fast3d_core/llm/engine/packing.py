"""Ragged batches: the rows of all samples in one packed tensor, (total rows, ...), without padding."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor


class Packing:
    """How many rows each sample has in a packed tensor, and where they are.

    Attributes:
        lengths: rows of each sample; total: of all; longest: of the one that has most.
        offsets: (samples + 1,) int32, each sample's first row, and the number of all rows.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device):
        self.lengths = list(lengths)
        self.device = device
        self.longest = max(self.lengths)
        self.total = sum(self.lengths)
        self.offsets = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32).to(device)

    @property
    def last(self) -> Tensor:
        """(samples,) the last row of each sample."""
        return self.offsets[1:] - 1

    @cached_property
    def valid(self) -> Tensor:
        """(samples, longest) bool: which places of the padded form hold a row; rows stand first, padding behind."""
        places = torch.arange(self.longest, device=self.device)
        return places < self.offsets.diff()[:, None]

    @cached_property
    def _rows(self) -> Tensor:
        places = torch.arange(self.longest, device=self.device)
        return torch.where(self.valid, self.offsets[:-1, None] + places, 0)

    @cached_property
    def _places(self) -> Tensor:
        """(total,) where each row stands in the flattened padded form; made on the CPU: nothing has to wait."""
        places = [torch.arange(n) + i * self.longest for i, n in enumerate(self.lengths)]
        return torch.cat(places).to(self.device)

    def pad(self, packed: Tensor) -> Tensor:
        """(total, ...) -> (samples, longest, ...); what stands behind a sample's rows is arbitrary but finite."""
        if self.total == self.longest * len(self.lengths):
            return packed.unflatten(0, (len(self.lengths), self.longest))
        return packed[self._rows]

    def unpad(self, padded: Tensor) -> Tensor:
        """(samples, longest, ...) -> (total, ...)."""
        if self.total == self.longest * len(self.lengths):
            return padded.flatten(0, 1)
        return padded.flatten(0, 1)[self._places]
