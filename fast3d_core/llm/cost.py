"""What a sample costs the LLM, by arithmetic: multiply-adds and bytes of the caches."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class LlmShape:
    """The sizes of an LLM that costs depend on."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int

    @cached_property
    def layer_macs(self) -> int:
        """Multiply-adds of one layer's projections and MLP for one token."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @cached_property
    def parameters(self) -> int:
        """Weights of the layers, the embedding and lm_head (norms left out)."""
        return self.layers * self.layer_macs + 2 * self.vocab * self.hidden


@dataclass(frozen=True)
class Cost:
    """What one sample costs the LLM.

    Attributes:
        prefill_flops, decode_flops: 2 per multiply-add of projections, MLP, causal QK and PV, and lm_head on the rows
            that are scored (one in prefill, every beam in each decode step).
        kv_bytes: key/value cache of the prompt, stored once per sample, and of the generated tokens of all beams.
    """

    prefill_flops: int
    decode_flops: int
    kv_bytes: int


def cost(
    shape: LlmShape,
    counts: Sequence[int],
    *,
    text: int,
    beams: int,
    steps: int,
    element_bytes: int,
    new: int | None = None,
) -> Cost:
    """Cost of one sample.

    Args:
        counts: visual tokens that each layer sees (`Plan.counts`).
        text: prompt tokens that are not visual.
        beams: beams that decode (all of them run until the sample is done).
        steps: tokens generated; the first comes from prefill, each other one takes a decode pass.
        element_bytes: bytes of one cached number.
        new: prompt tokens that every layer computes, where those before them, all visual ones included, are in the
            prefix cache; None where none is.
    """
    tokens = [text + count for count in counts]
    attended = shape.heads * shape.head_dim * 2  # multiply-adds of QK and PV for one query-key pair
    head = shape.hidden * shape.vocab
    prefill = sum(_prefill_macs(shape, n if new is None else new, n) for n in tokens) + head
    passes = max(steps - 1, 0)
    # Pass s (1, 2, ...) sees the prompt and the s tokens generated before its output.
    seen = sum(passes * n + passes * (passes + 1) // 2 for n in tokens)
    decode = beams * (passes * (shape.layers * shape.layer_macs + head) + attended * seen)
    rows = sum(tokens) + beams * passes * shape.layers
    return Cost(2 * prefill, 2 * decode, rows * 2 * shape.kv_heads * shape.head_dim * element_bytes)


def scene_flops(shape: LlmShape, tokens: int) -> int:
    """FLOPs of a prefill of what stands before the questions about a scene, all of it, for the prefix cache."""
    return 2 * shape.layers * _prefill_macs(shape, tokens, tokens)


def _prefill_macs(shape: LlmShape, new: int, seen: int) -> int:
    """Multiply-adds of a layer that computes the last `new` of `seen` tokens."""
    pairs = new * (seen - new) + new * (new + 1) // 2
    return new * shape.layer_macs + shape.heads * shape.head_dim * 2 * pairs
