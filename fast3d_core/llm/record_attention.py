"""How much each text row attends to the visual tokens, in every layer: a prefill that drops nothing and records.

A row of attention sees only what stands before it, so texts that follow the same prefix (a scene's visual tokens) share
its hidden states: every prefix of a batch is computed once, by `Backend.prefill_attention`, however many texts follow
it. Only text rows need weights; they are computed in chunks of bounded size, reduced over heads and rows as they come,
and gather the layer's output on the way. A layer's attention never exists as a whole.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from fast3d_core.llm.engine import backend
from fast3d_core.llm.engine.cache import Layout
from fast3d_core.llm.engine.packing import Packing
from fast3d_core.llm.families import Llm, check_window
from fast3d_core.llm.generation import Prompt
from fast3d_core.llm.weights import finish_layer, project, shape_of

CHUNK_BYTES = 256 << 20
"""What the attention weights of a chunk may take: little beside the weights of a 7B model, and enough that a batch of
32 ordinary prompts is one or two chunks a layer."""

_BYTES_PER_WEIGHT = 16  # at most: scores and their parts, float32 weights, and these in the model's type
_ALIGNED = 8  # GPUs multiply bf16 matrices twice as fast when their rows begin at multiples of 16 bytes


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
    llm: Llm, prefixes: Sequence[Prompt], texts: Sequence[Text], chunk_bytes: int = CHUNK_BYTES
) -> Tensor:
    """The attention that text rows pay to the visual tokens, averaged over heads and rows.

    Args:
        prefixes: different prompts up to the text; lengths may differ, the position of the visual tokens may not.
        texts: one a sample, each follows one of the prefixes.
        chunk_bytes: bound of the memory for attention weights.

    Returns:
        (samples, layers, 2, visual) float32: the mean over all rows of a text, and over its question's rows.

    Raises:
        DataError: see `check_window`.
    """
    check_window(llm.config, max(len(prefixes[text.prefix]) + len(text.embeds) for text in texts))
    prefill_attention = backend.choose(llm.device, llm.dtype, shape_of(llm.config)).prefill_attention
    device, (start, visual) = texts[0].embeds.device, (prefixes[0].visual_start, prefixes[0].visual)
    assert all((p.visual_start, p.visual) == (start, visual) for p in prefixes)
    order = sorted(range(len(texts)), key=lambda i: texts[i].prefix)  # the texts of a prefix in one run
    texts = [texts[i] for i in order]
    followers = [sum(text.prefix == i for text in texts) for i in range(len(prefixes))]
    before = Packing([len(prefix) for prefix in prefixes], device)
    behind = Packing([len(text.embeds) for text in texts], device, multiple=_ALIGNED)
    prefixes_alone = Layout(before, decode_slots=0, padded=False)
    x = torch.cat([*(prefix.embeds for prefix in prefixes), *(text.embeds for text in texts)])
    positions = [torch.arange(n) for n in before.lengths]
    positions += [torch.arange(len(text.embeds)) + len(prefixes[text.prefix]) for text in texts]
    cos, sin = (part[0] for part in llm.model.rotary_emb(x, torch.cat(positions).to(device)[None]))
    shares = _row_shares(texts, behind.max_seqlen).to(device).split(followers)
    recorded = []
    for layer in llm.model.layers:
        q, k, v = project(layer, x, cos, sin)
        (q_before, q_behind), (k_before, k_behind), (v_before, v_behind) = (
            part.split([before.num_tokens, behind.num_tokens]) for part in (q, k, v)
        )
        own = zip(*(behind.pad(part).split(followers) for part in (q_behind, k_behind, v_behind)), strict=True)
        shared = zip(k_before.split(before.lengths), v_before.split(before.lengths), strict=True)
        attended, weights = zip(
            *(
                _attend(rows, prefix, share, slice(start, start + visual), chunk_bytes)
                for rows, prefix, share in zip(own, shared, shares, strict=True)
                if len(share)
            ),
            strict=True,
        )
        recorded.append(torch.cat(weights))
        if len(recorded) < len(llm.model.layers):  # the output of the last layer is not needed
            gathered = prefill_attention(q_before, k_before, v_before, before, prefixes_alone)
            x = finish_layer(layer, x, torch.cat([gathered, behind.unpad(torch.cat(attended))]))
    back = torch.tensor(sorted(range(len(order)), key=order.__getitem__), device=device)
    return torch.stack(recorded, dim=1)[back]


def _row_shares(texts: Sequence[Text], longest: int) -> Tensor:
    """(samples, 2, longest) float32: each row's part in the mean over all rows, and over the question's."""
    share = torch.zeros(len(texts), 2, longest)
    for i, text in enumerate(texts):
        for kind, count in enumerate((len(text.embeds), text.question)):
            assert 0 < count <= len(text.embeds)
            share[i, kind, :count] = 1 / count
    return share


def _attend(
    rows: tuple[Tensor, Tensor, Tensor], prefix: tuple[Tensor, Tensor], share: Tensor, visual: slice, chunk_bytes: int
) -> tuple[Tensor, Tensor]:
    """Attention of the texts that follow one prefix, over the prefix and over themselves.

    Args:
        rows: q (samples, rows, heads, head_dim), k and v (samples, rows, kv heads, head_dim); padding stands behind.
        prefix: k and v, (prefix tokens, kv heads, head_dim).
        share: (samples, 2, rows), each row's part in the recorded means.
        visual: the columns of the visual tokens.

    Returns:
        (samples, rows, heads, head_dim) what was gathered, and (samples, 2, visual) float32 the recorded means.
    """
    samples, longest, heads, head_dim = rows[0].shape
    kv_heads, common = rows[1].shape[2], len(prefix[0])
    group, padding = heads // kv_heads, -common % _ALIGNED
    q = (rows[0] / math.sqrt(head_dim)).unflatten(2, (kv_heads, group)).permute(2, 0, 3, 1, 4)
    k, v = (x.permute(2, 0, 1, 3).contiguous() for x in rows[1:])  # (kv heads, samples, rows, d)
    prefix_k, prefix_v = (functional.pad(x, (0, 0, 0, 0, 0, padding)).transpose(0, 1) for x in prefix)
    edge = common + padding  # columns: the prefix up to here, then the text
    beyond_prefix = torch.arange(edge, device=q.device) >= common
    position = torch.arange(longest, device=q.device)
    attended = torch.empty_like(rows[0]).unflatten(2, (kv_heads, group)).permute(2, 0, 3, 1, 4)
    recorded = share.new_zeros(samples, 2, visual.stop - visual.start)
    for s, h, r in plan_chunks(samples, kv_heads, longest, group * (edge + longest), chunk_bytes):
        queries = q[h, s, :, r].flatten(2, 3)  # (kv heads, samples, group x rows, d)
        count = queries.shape[1]
        on_prefix = torch.matmul(queries.flatten(1, 2), prefix_k[h].transpose(1, 2)).unflatten(1, (count, -1))
        on_text = torch.matmul(queries, k[h, s].transpose(2, 3))
        scores = torch.cat([on_prefix, on_text], dim=-1).unflatten(2, (group, -1))
        hidden = torch.cat([beyond_prefix.expand(r.stop - r.start, -1), position > position[r, None]], dim=-1)
        weights = scores.masked_fill_(hidden, -math.inf).softmax(dim=-1, dtype=torch.float32)
        recorded[s] += share[s, :, r] @ weights[..., visual].sum(dim=(0, 2))
        weights = weights.to(v.dtype).flatten(2, 3)
        gathered = torch.matmul(weights[..., :edge].flatten(1, 2), prefix_v[h]).unflatten(1, (count, -1))
        gathered += torch.matmul(weights[..., edge:], v[h, s])
        attended[h, s, :, r] = gathered.unflatten(2, (group, -1))
    return attended.permute(1, 3, 0, 2, 4).flatten(2, 3), recorded / heads


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
