"""Which visual tokens of a sample stay, from which layer on, and what that costs.

A `Plan` is the one thing that passes between the pruning methods, which make plans, and the engines, which carry them
out. This module knows neither.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fast3d_core.errors import Fast3DError


class PlanError(Fast3DError, ValueError):
    """A plan that no engine can carry out: a fault of the method that made it."""


@dataclass(frozen=True)
class Units:
    """What a scene is made of for the LLM: `count` units (objects, patches), each of `tokens` visual tokens in a row.

    Unit i is what slot i of the scene's features shows; the visual tokens of a prompt are those of unit 0, 1, ...
    """

    count: int
    tokens: int

    @property
    def visual(self) -> int:
        """Visual tokens of a prompt."""
        return self.count * self.tokens

    def of(self, offsets: Iterable[int]) -> list[int]:
        """The units that have any of these visual tokens, ascending."""
        return sorted({offset // self.tokens for offset in offsets})


@dataclass(frozen=True)
class Plan:
    """The visual tokens of one sample that layers `layer`, `layer` + 1, ... see; the layers before see all of them.

    Attributes:
        layer: K, counted from 0; K = 0 drops tokens before the first layer.
        visual: number of visual tokens in the prompt (300).
        count: how many of them stay.
        kept: (count,) int64 ascending offsets into the visual tokens; None while `choose` has to decide.
        choose: for methods that look at the LLM's attention: given the score of each visual token, (visual,) float32
            attention of the last prompt token at layer K - 1 averaged over heads, the offsets that stay.

    With neither `kept` nor `choose` a plan tells a cost, and engines refuse it.

    Raises:
        PlanError: a number is out of range, there are both `kept` and `choose`, or `kept` is not as said above.
    """

    layer: int
    visual: int
    count: int
    kept: Tensor | None = None
    choose: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        numbers = (self.layer, self.visual, self.count)
        if not all(map(_is_count, numbers)):
            raise PlanError(f"a plan's layer, visual and count are integers from 0 on, not {numbers}")
        if self.count > self.visual:
            raise PlanError(f"a plan keeps {self.count} of {self.visual} visual tokens")
        if self.choose is not None and self.kept is not None:
            raise PlanError("a plan has either `kept` or `choose`, not both")
        if self.choose is not None and self.layer == 0:
            raise PlanError("a plan with `choose` reads the attention of layer K - 1, so its layer is at least 1")
        if self.kept is not None:
            self._check_kept(self.kept)

    def resolve(self, scores: Tensor) -> Tensor:
        """The kept offsets once the attention `scores` (visual,) are known. Raises `PlanError` as for `kept`."""
        assert self.choose is not None  # only plans without `kept` are resolved
        kept = self.choose(scores)
        self._check_kept(kept)
        return kept

    def check_fit(self, layers: int, visual: int) -> None:
        """Raises `PlanError` unless this is for an LLM of `layers` layers and a prompt of `visual` visual tokens.

        Without, each engine would answer something, and not the same."""
        if self.kept is None and self.choose is None:
            raise PlanError("a plan needs `kept`, or `choose`, which decides on it")
        if self.visual != visual:
            raise PlanError(f"the plan is for {self.visual} visual tokens, the prompt has {visual}")
        if self.layer >= layers:
            raise PlanError(f"the plan drops tokens from layer {self.layer} on, the LLM has layers 0..{layers - 1}")

    def _check_kept(self, kept: Tensor) -> None:
        """On the CPU, where methods make it and engines read it."""
        if not isinstance(kept, Tensor) or kept.dtype != torch.int64 or kept.shape != (self.count,):
            found = f"{kept.dtype} {tuple(kept.shape)}" if isinstance(kept, Tensor) else type(kept).__name__
            raise PlanError(f"a plan's kept offsets are {self.count} numbers of torch.int64, not {found}")
        offsets = kept.detach().cpu().numpy()
        if self.count and not (offsets[0] >= 0 and offsets[-1] < self.visual and (offsets[1:] > offsets[:-1]).all()):
            raise PlanError(
                f"a plan's kept offsets ascend, each once, from 0 to at most {self.visual - 1}; these do not: "
                f"{', '.join(map(str, offsets[:8]))}{', ...' if self.count > 8 else ''}"
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True)
class LlmShape:
    """The sizes of a LLaMA that costs depend on."""

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


def layer_tokens(shape: LlmShape, layer: int, text: int, visual: int, count: int) -> list[int]:
    """Prompt tokens that each layer sees: all before layer K, text and kept ones from there on."""
    return [text + (visual if i < layer else count) for i in range(shape.layers)]


def pruning_ratio(layers: int, layer: int, visual: int, count: int) -> float:
    """Layer-averaged share of visual tokens that are pruned, (1 - K / L)(1 - count / visual)."""
    return (1 - layer / layers) * (1 - count / visual) if visual else 0.0


def cost(
    shape: LlmShape,
    *,
    layer: int,
    text: int,
    visual: int,
    count: int,
    beams: int,
    steps: int,
    element_bytes: int,
    known: int = 0,
) -> Cost:
    """Cost of one sample.

    Args:
        layer, visual, count: of the plan.
        text: prompt tokens that are not visual.
        beams: beams that decode (all of them run until the sample is done).
        steps: tokens generated; the first comes from prefill, each other one takes a decode pass.
        element_bytes: bytes of one cached number.
        known: tokens before the question, visual ones included, whose keys and values are there already (scene reuse).
    """
    tokens = layer_tokens(shape, layer, text, visual, count)
    attended = shape.heads * shape.head_dim * 2  # multiply-adds of QK and PV for one query-key pair
    head = shape.hidden * shape.vocab
    new = [text + visual - known if known else n for n in tokens]
    prefill = sum(_reading(shape, m, n) for m, n in zip(new, tokens, strict=True)) + head
    passes = max(steps - 1, 0)
    # Pass s (1, 2, ...) sees the prompt and the s tokens generated before its output.
    seen = sum(passes * n + passes * (passes + 1) // 2 for n in tokens)
    decode = beams * (passes * (shape.layers * shape.layer_macs + head) + attended * seen)
    cached = sum(tokens) + beams * passes * shape.layers
    return Cost(2 * prefill, 2 * decode, cached * 2 * shape.kv_heads * shape.head_dim * element_bytes)


def scene_flops(shape: LlmShape, tokens: int) -> int:
    """FLOPs of reading what stands before the questions about a scene once, all of it, for scene reuse."""
    return 2 * shape.layers * _reading(shape, tokens, tokens)


def _reading(shape: LlmShape, new: int, seen: int) -> int:
    """Multiply-adds of a layer that reads the last `new` of `seen` tokens."""
    pairs = new * (seen - new) + new * (new + 1) // 2
    return new * shape.layer_macs + shape.heads * shape.head_dim * 2 * pairs
