"""How much each text row attends to the visual tokens, in every layer: a prefill that drops nothing and records.

A row of attention sees only what stands before it, so texts that follow the same prefix (a scene's visual tokens) share
its hidden states: every prefix of a batch is computed once, by `prefill_attention`, however many texts follow it. Only
text rows need weights; they are computed in chunks of bounded size, reduced over heads and rows as they come, and
gather the layer's output on the way. A layer's attention never exists as a whole.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from fast3d_core.vicuna.attention import prefill_attention
from fast3d_core.vicuna.llm import Prompt, finish_layer, project
from fast3d_core.vicuna.packing import Packing

CHUNK_BYTES = 256 << 20
"""What the attention weights of a chunk may take: little beside the weights of a 7B model, and enough that a batch of
32 ordinary prompts is one or two chunks a layer."""

_BYTES_PER_WEIGHT = 16  # scores and float32 weights, their copy in the model's type, the mask, the visual columns


@dataclass(frozen=True)
class Text:
    """What follows a prefix.

    Attributes:
        embeds: (rows, hidden).
        prefix: which of the batch's prefixes it follows.
        question: how many of the rows, from the first, are the question.
    """

    embeds: Tensor
    prefix: int
    question: int


@torch.inference_mode()
def text_attention(
    llm: LlamaForCausalLM, prefixes: Sequence[Prompt], texts: Sequence[Text], chunk_bytes: int = CHUNK_BYTES
) -> Tensor:
    """The attention that text rows pay to the visual tokens, averaged over heads and rows.

    Args:
        prefixes: different prompts up to the text; lengths may differ, the place of the visual tokens may not.
        texts: one a sample, each follows one of the prefixes.
        chunk_bytes: bound of the memory for attention weights.

    Returns:
        (samples, layers, 2, visual) float32: the mean over all rows of a text, and over its question's rows.
    """
    device, (start, visual) = texts[0].embeds.device, (prefixes[0].visual_start, prefixes[0].visual)
    assert all((p.visual_start, p.visual) == (start, visual) for p in prefixes)
    x = torch.cat([*(prefix.embeds for prefix in prefixes), *(text.embeds for text in texts)])
    before = Packing([len(prefix) for prefix in prefixes], device)
    behind = Packing([len(text.embeds) for text in texts], device)
    lengths = [len(prefixes[text.prefix]) for text in texts]
    places = [torch.arange(n) for n in before.lengths]
    places += [torch.arange(n) + first for n, first in zip(behind.lengths, lengths, strict=True)]
    cos, sin = (table[0] for table in llm.model.rotary_emb(x, torch.cat(places).to(device)[None]))
    rows = _Rows(
        prefix=torch.tensor([text.prefix for text in texts], device=device),
        prefix_valid=torch.arange(before.longest, device=device) < torch.tensor(lengths, device=device)[:, None],
        share=_row_shares(texts, behind.longest).to(device),
        visual=slice(start, start + visual),
        chunk_bytes=chunk_bytes,
    )
    recorded = []
    for layer in llm.model.layers:
        q, k, v = project(layer, x, cos, sin)
        (q_before, q_behind), (k_before, k_behind), (v_before, v_behind) = (
            part.split([before.total, behind.total]) for part in (q, k, v)
        )
        keys, values = (
            torch.cat([before.pad(prefix)[rows.prefix], behind.pad(text)], dim=1)
            for prefix, text in ((k_before, k_behind), (v_before, v_behind))
        )
        attended, weights = _attend(behind.pad(q_behind), keys, values, rows)
        recorded.append(weights)
        if len(recorded) < len(llm.model.layers):  # nobody reads what the last layer would give
            attended = torch.cat([prefill_attention(q_before, k_before, v_before, before), behind.unpad(attended)])
            x = finish_layer(layer, x, attended)
    return torch.stack(recorded, dim=1)


@dataclass(frozen=True)
class _Rows:
    """What the text rows of a batch see and count for, the same in every layer. Text rows are padded behind.

    Attributes:
        prefix: (samples,) which prefix a text follows.
        prefix_valid: (samples, longest prefix) bool, False on padding.
        share: (samples, 2, rows) float32, each row's part in the mean over all rows and over the question's.
        visual: the columns of the visual tokens.
    """

    prefix: Tensor
    prefix_valid: Tensor
    share: Tensor
    visual: slice
    chunk_bytes: int


def _row_shares(texts: Sequence[Text], longest: int) -> Tensor:
    share = torch.zeros(len(texts), 2, longest)
    for i, text in enumerate(texts):
        for kind, count in enumerate((len(text.embeds), text.question)):
            assert 0 < count <= len(text.embeds)
            share[i, kind, :count] = 1 / count
    return share


def _attend(q: Tensor, k: Tensor, v: Tensor, rows: _Rows) -> tuple[Tensor, Tensor]:
    """Attention of the text rows over prefix and text.

    Args:
        q: (samples, rows, heads, head_dim); k, v: (samples, prefix + rows, kv heads, head_dim), padded.

    Returns:
        (samples, rows, heads, head_dim) what was gathered, and (samples, 2, visual) float32 the recorded means.
    """
    samples, longest, heads, _ = q.shape
    columns, kv_heads = k.shape[1], k.shape[2]
    group = heads // kv_heads
    q = q.unflatten(2, (kv_heads, group)).permute(0, 2, 3, 1, 4) / math.sqrt(q.shape[-1])  # (s, kv, group, rows, d)
    k, v = k.permute(0, 2, 3, 1), v.transpose(1, 2)  # (s, kv, d, columns), (s, kv, columns, d)
    attended = torch.empty_like(q)
    recorded = rows.share.new_zeros(samples, 2, rows.visual.stop - rows.visual.start)
    place = torch.arange(longest, device=q.device)
    for s, h, r in plan_chunks(samples, kv_heads, longest, group * columns, rows.chunk_bytes):
        seen = (place <= place[r, None]).expand(s.stop - s.start, -1, -1)
        prefix_seen = rows.prefix_valid[s, None].expand(-1, r.stop - r.start, -1)
        hidden = ~torch.cat([prefix_seen, seen], dim=-1)[:, None, None]
        scores = torch.matmul(q[s, h, :, r].flatten(2, 3), k[s, h]).unflatten(2, (group, -1))
        scores.masked_fill_(hidden, -math.inf)
        weights = scores.softmax(dim=-1, dtype=torch.float32)
        gathered = torch.matmul(weights.to(v.dtype).flatten(2, 3), v[s, h])
        attended[s, h, :, r] = gathered.unflatten(2, (group, -1))
        recorded[s] += rows.share[s, :, r] @ weights[..., rows.visual].sum(dim=(1, 2))
    return attended.permute(0, 3, 1, 2, 4).flatten(2, 3), recorded / heads


def plan_chunks(samples: int, heads: int, rows: int, columns: int, budget: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cuts samples x heads x rows, each `columns` weights wide, into chunks whose weights take at most `budget` bytes.

    Rows are cut last, samples first; one row of one head of one sample is the least there is.
    """
    fits = max(1, budget // (columns * _BYTES_PER_WEIGHT))
    sizes = []
    for count in (rows, heads, samples):
        sizes.append(min(count, fits))
        fits = max(1, fits // sizes[-1])
    size_rows, size_heads, size_samples = sizes
    return product(_cuts(samples, size_samples), _cuts(heads, size_heads), _cuts(rows, size_rows))


def _cuts(count: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]
