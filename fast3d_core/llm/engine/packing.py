"""Ragged batches: the rows of all samples in one packed tensor, (num_tokens, ...), without padding between them."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor


class Seqlens:
    """Where the samples' rows are in a packed tensor, as far as attention over packed rows has to know: the lengths are
    on the device alone, so that a captured CUDA graph serves batches of other lengths.

    Attributes:
        cu_seqlens: (samples + 1,) int32, each sample's first row, and the number of all rows.
        max_seqlen: no sample has more rows.
        num_tokens: rows of the packed tensor; those from cu_seqlens[-1] on are padding.
    """

    def __init__(self, cu_seqlens: Tensor, max_seqlen: int, num_tokens: int):
        self.cu_seqlens, self.max_seqlen, self.num_tokens = cu_seqlens, max_seqlen, num_tokens

    @property
    def last(self) -> Tensor:
        """(samples,) the last row of each sample."""
        return self.cu_seqlens[1:] - 1


class Packing(Seqlens):
    """The same where the host knows the lengths, too, so that samples can be padded; there are no rows of padding.

    Args:
        lengths: rows of each sample.
        multiple: of which `max_seqlen`, the length of padded samples, has to be one.

    Attributes:
        lengths: as given.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device, multiple: int = 1):
        self.lengths = list(lengths)
        self.device = device
        cu_seqlens = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32).to(device)
        super().__init__(cu_seqlens, -(-max(self.lengths) // multiple) * multiple, sum(self.lengths))

    @cached_property
    def valid(self) -> Tensor:
        """(samples, max_seqlen) bool: what in the padded form is a row; rows stand first, padding behind them."""
        columns = torch.arange(self.max_seqlen, device=self.device)
        return columns < self.cu_seqlens.diff()[:, None]

    @cached_property
    def _rows(self) -> Tensor:
        columns = torch.arange(self.max_seqlen, device=self.device)
        return torch.where(self.valid, self.cu_seqlens[:-1, None] + columns, 0)

    @cached_property
    def _padded_rows(self) -> Tensor:
        """(num_tokens,) where each row is in the flattened padded form; made on the CPU: nothing has to wait."""
        rows = [torch.arange(n) + i * self.max_seqlen for i, n in enumerate(self.lengths)]
        return torch.cat(rows).to(self.device)

    def pad(self, packed: Tensor) -> Tensor:
        """(num_tokens, ...) -> (samples, max_seqlen, ...); what padding holds is arbitrary but finite."""
        if self.num_tokens == self.max_seqlen * len(self.lengths):
            return packed.unflatten(0, (len(self.lengths), self.max_seqlen))
        return packed[self._rows]

    def unpad(self, padded: Tensor) -> Tensor:
        """(samples, max_seqlen, ...) -> (num_tokens, ...)."""
        if self.num_tokens == self.max_seqlen * len(self.lengths):
            return padded.flatten(0, 1)
        return padded.flatten(0, 1)[self._padded_rows]
