"""Recorded attention against stock transformers, which holds every weight of one sample; and that ours never does."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from fast3d_core.llm.generation import Prompt
from fast3d_core.llm.record_attention import _BYTES_PER_WEIGHT, Text, plan_chunks, text_attention

START, VISUAL = 3, 6


def tiny(kv_heads, layers=3):
    torch.manual_seed(kv_heads)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=kv_heads, attn_implementation="eager",
    )  # fmt: skip
    llm = LlamaForCausalLM(config).eval().requires_grad_(False)
    for parameter in llm.parameters():  # transformers starts with weights so small that attention is uniform
        parameter.mul_(4)
    return llm


def batch(prefix_lengths, text_lengths, dtype=torch.float32):
    """Random prefixes and texts; text i follows prefix i modulo their number."""
    generator = torch.Generator().manual_seed(0)

    def embeds(n):
        return torch.randn(n, 32, generator=generator).to(dtype)

    prefixes = [Prompt(embeds(n), START, VISUAL) for n in prefix_lengths]
    texts = [Text(embeds(n), i % len(prefixes), 1 + (i * 7) % n) for i, n in enumerate(text_lengths)]
    return prefixes, texts


def plain(llm, prefixes, texts):
    """The same from all weights of one sample at a time, as transformers returns them."""
    out = []
    for text in texts:
        prefix = prefixes[text.prefix]
        whole = torch.cat([prefix.embeds, text.embeds])[None]
        attentions = llm(inputs_embeds=whole, output_attentions=True).attentions  # of each layer (1, heads, n, n)
        rows = torch.cat(attentions).float().mean(dim=1)[:, len(prefix) :, START : START + VISUAL]
        out.append(torch.stack([rows.mean(dim=1), rows[:, : text.question].mean(dim=1)], dim=1))
    return torch.stack(out)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(
    ("prefix_lengths", "text_lengths"),
    [([12], [5]), ([12, 9, 20], [5, 1, 8, 8, 2, 11, 3]), ([10, 10], [4, 4, 4, 4]), ([9, 15], [1, 1])],
)
def test_equals_stock_transformers(kv_heads, prefix_lengths, text_lengths):
    llm = tiny(kv_heads).double()  # so that what is left to differ is the softmax in float32
    prefixes, texts = batch(prefix_lengths, text_lengths, dtype=torch.float64)
    want = plain(llm, prefixes, texts)
    assert want.std() > 0.01  # far from uniform
    for chunk_bytes in (1, 3000, 20_000, 1 << 28):
        got = text_attention(llm, prefixes, texts, chunk_bytes)
        assert (got.dtype, got.shape) == (torch.float32, (len(texts), 3, 2, VISUAL))
        torch.testing.assert_close(got, want, atol=1e-6, rtol=0)


def test_what_shares_a_batch_does_not_matter():
    llm = tiny(4)
    prefixes, texts = batch([12, 9, 20], [5, 1, 8, 8, 2, 11, 3])
    together = text_attention(llm, prefixes, texts)
    for text, want in zip(texts, together, strict=True):
        alone = text_attention(llm, [prefixes[text.prefix]], [Text(text.embeds, 0, text.question)])
        torch.testing.assert_close(alone[0], want, atol=1e-5, rtol=1e-4)


@given(
    samples=st.integers(1, 6), heads=st.integers(1, 5), rows=st.integers(1, 9), columns=st.integers(1, 40),
    budget=st.integers(1, 60_000),
)  # fmt: skip
def test_chunks_cover_everything_once_and_fit(samples, heads, rows, columns, budget):
    seen = torch.zeros(samples, heads, rows, dtype=torch.int64)
    for chunk in plan_chunks(samples, heads, rows, columns, budget):
        seen[chunk] += 1
        weights = seen[chunk].numel()
        assert weights == 1 or weights * columns * _BYTES_PER_WEIGHT <= budget
    assert (seen == 1).all()


def test_a_full_size_batch_fits():
    """Vicuna-7B, batch 32, prompts of 440 tokens of which 90 are text: a few chunks a layer, not thousands."""
    chunks = list(plan_chunks(32, 32, 90, 440, 256 << 20))
    assert 1 < len(chunks) <= 4


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes, in bytes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.bytes = max([self.bytes, *(t.numel() * t.element_size() for t in tree_leaves(out) if torch.is_tensor(t))])
        return out


def test_memory_does_not_grow_with_the_square_of_the_length():
    llm, largest = tiny(4, layers=2), {}
    for length in (100, 300, 900):
        prefixes, texts = batch([length], [length])
        with Largest() as mode:
            text_attention(llm, prefixes, texts, chunk_bytes=1 << 16)
        largest[length] = mode.bytes
    assert largest[300] <= 3.2 * largest[100]
    assert largest[900] <= 3.2 * largest[300]
    assert largest[900] < 900 * 900  # one head's weights, at a byte each


def test_half_precision():
    llm = tiny(2)
    prefixes, texts = batch([12, 9], [5, 1, 8])
    want = text_attention(llm, prefixes, texts)
    prefixes = [Prompt(p.embeds.bfloat16(), START, VISUAL) for p in prefixes]
    texts = [Text(t.embeds.bfloat16(), t.prefix, t.question) for t in texts]
    got = text_attention(llm.to(torch.bfloat16), prefixes, texts)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.mean((0, 1)), want.mean((0, 1)), atol=0.02, rtol=0.2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_equals_cpu():
    llm = tiny(2)
    prefixes, texts = batch([12, 9, 20], [5, 1, 8, 8, 2, 11, 3])
    want = text_attention(llm, prefixes, texts)
    prefixes = [Prompt(p.embeds.cuda(), START, VISUAL) for p in prefixes]
    texts = [Text(t.embeds.cuda(), t.prefix, t.question) for t in texts]
    got = text_attention(llm.cuda(), prefixes, texts)
    torch.testing.assert_close(got.cpu(), want, atol=1e-5, rtol=1e-4)
