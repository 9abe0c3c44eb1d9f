"""What the stages of plans look at during prefill: no more than they ask for, of the samples whose stages ask."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fast3d_core.llm.engine.backend import Backend
from fast3d_core.llm.engine.runs import Run

_CHUNK_BYTES = 64 << 20
"""What the attention weights of some text rows may take at once: a prompt of Chat-Scene has 80 of them, which need 8 MB
with Vicuna-7B; those of a page of text would need gigabytes."""

_BYTES_PER_WEIGHT = 16  # at most: scores, masked scores and float32 weights


@dataclass(frozen=True)
class Rows:
    """Where a sample's visual tokens are just before a boundary.

    Attributes:
        sample: its number in the batch.
        visual: of its packed rows and of its rows in the cache, the first and the number of those of visual tokens.
        text: rows behind the visual tokens that are computed.
    """

    sample: int
    visual: slice
    text: int


def last_attention(backend: Backend, q: Tensor, keys: Tensor, run: Run, rows: Sequence[Rows]) -> Iterator[Tensor]:
    """The attention of each sample's last row to its visual tokens, mean over heads: (n,) float32 for each of `rows`.

    Args:
        q: (query rows, heads, head_dim) of the layer before the boundary; keys: (cache rows, kv heads, head_dim).
        run: that the layer belongs to.
    """
    last, k, valid = q[run.queries.last], run.layout.view(keys), run.layout.prompts.valid
    if len(rows) < len(k):
        some = torch.tensor([one.sample for one in rows]).to(q.device)
        last, k, valid = last[some], k[some], valid[some]
    weights = backend.row_weights(last, k, valid).mean(dim=1)
    return (row[one.visual] for row, one in zip(weights, rows, strict=True))


def text_attention(q: Tensor, keys: Tensor, run: Run, rows: Rows) -> Tensor:
    """The attention of every text row behind a sample's visual tokens to them, mean over heads: (text, n) float32.

    Args: see `last_attention`.
    """
    sample = rows.sample
    begin, count = run.layout.begin[sample], run.layout.prompts.lengths[sample]
    behind = sum(run.queries.lengths[: sample + 1])
    q, k = q[behind - rows.text : behind], keys[begin : begin + count]
    q = q.unflatten(1, (k.shape[1], -1))  # queries that share keys together
    size = max(1, _CHUNK_BYTES // (q.shape[1] * q.shape[2] * count * _BYTES_PER_WEIGHT))
    columns = torch.arange(count, device=q.device)
    attention = [q.new_empty(0, rows.visual.stop - rows.visual.start, dtype=torch.float32)]
    for first in range(0, rows.text, size):
        part = q[first : first + size]
        scores = torch.einsum("tkgd,nkd->kgtn", part, k) / math.sqrt(q.shape[-1])
        own = torch.arange(first, first + len(part), device=q.device)[:, None] + count - rows.text
        weights = scores.masked_fill(columns > own, -math.inf).softmax(dim=-1, dtype=torch.float32)
        attention.append(weights[..., rows.visual].mean(dim=(0, 1)))
    return torch.cat(attention)
