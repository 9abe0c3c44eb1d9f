"""Which visual tokens of a sample are kept, from which layer on: a plan of stages.

A `Plan` is the one thing that passes between the pruning methods, which make plans, and the engines, which carry them
out. This module knows neither.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from fast3d_core.errors import PlanError

__all__ = ["Look", "Merge", "Plan", "PlanError", "Select", "Stage", "Units", "View", "layer_counts", "pruning_ratio"]


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


Look = Literal["last", "text", "keys", "hidden"]
"""What a stage's functions can ask to see; `View` says what each is."""

_LOOKS: tuple[Look, ...] = get_args(Look)
_ATTENTION = {"last", "text", "keys"}  # of the layer before the stage, so a stage at layer 0 has none of them


@dataclass(frozen=True)
class View:
    """What the functions of a stage see of one sample, just before the stage: what it asked to look at, else None.

    All tensors of a view are on one device: the CPU where nothing but "last" and "text" is asked for, which are few
    numbers whose ties then fall the same everywhere; else the device of the LLM.

    Attributes:
        offsets: (n,) int64, the visual tokens that are still there, as offsets into those of the prompt, ascending.
        last: (n,) float32, the attention that the last row of the prompt pays to them in the layer before the stage,
            mean over heads. At a decoding step (`Stage.every_step`) that of the newest token.
        text: (text rows, n) float32, the same of every row behind the visual tokens; where a prefix cache is used, of
            the rows behind the prefix.
        keys: (n, kv_heads, head_dim), their keys in the layer before the stage, with positions rotated in.
        hidden: (n, hidden), their hidden states as they enter the stage's layer; their embeddings at layer 0.
    """

    offsets: Tensor
    last: Tensor | None = None
    text: Tensor | None = None
    keys: Tensor | None = None
    hidden: Tensor | None = None


Select = Callable[[View], Tensor]
"""From a view to the offsets that are kept, (count,) int64, ascending: `count` of those in `View.offsets`."""

Merge = Callable[[View, Tensor], Tensor]
"""From a view and the indices of the kept tokens into `View.offsets`, (count,) int64, to their hidden states, (count,
hidden)."""


@dataclass(frozen=True)
class Stage:
    """From `layer` on, `count` visual tokens are left.

    Attributes:
        layer: K, counted from 0; the layers before see what the stage before left. 0 drops tokens before the first
            layer.
        count: how many tokens are kept.
        select: which ones: (count,) int64 ascending offsets into the visual tokens of the prompt, or a function that
            decides on them at prefill.
        merge: folds what is dropped into what is kept: the hidden states that the kept tokens enter `layer` with. None
            leaves them as they are. Needs "hidden" in `look`.
        look: what `select` and `merge` see of the sample; engines compute no more than that.
        every_step: the reference engine selects again at every decoding step, from what the newest token of the best
            beam looks at, as published FastV does. Only for the last stage of a plan, looking at "last", without
            `merge`. The fast engine holds what was selected at prefill.

    Raises:
        PlanError: one of these is not as described above.
    """

    layer: int
    count: int
    select: Tensor | Select
    merge: Merge | None = None
    look: tuple[Look, ...] | frozenset[Look] = ()
    every_step: bool = False

    def __post_init__(self) -> None:
        if not (_is_count(self.layer) and _is_count(self.count)):
            raise PlanError(f"a stage's layer and count are integers from 0 on, not {self.layer!r} and {self.count!r}")
        if isinstance(self.look, str) or not set(self.look) <= set(_LOOKS):
            raise PlanError(f"a stage looks at some of {', '.join(_LOOKS)}, given as a tuple, not at {self.look!r}")
        object.__setattr__(self, "look", tuple(name for name in _LOOKS if name in self.look))
        if self.layer == 0 and (early := [name for name in self.look if name in _ATTENTION]):
            raise PlanError(
                f'a stage at layer 0 has no layer before it, so it cannot look at "{early[0]}"; take layer 1'
            )
        if self.merge is not None and "hidden" not in self.look:
            raise PlanError('a stage with `merge` needs "hidden" in its `look`')
        if isinstance(self.select, Tensor):
            if self.look and self.merge is None:
                raise PlanError("a stage whose `select` is a tensor, without `merge`, has no function that could look")
            _check_offsets(self.select, self.count)
        elif not callable(self.select):
            raise PlanError(f"a stage's `select` is a tensor or a function, not {type(self.select).__name__}")
        if self.every_step and (isinstance(self.select, Tensor) or self.look != ("last",) or self.merge is not None):
            raise PlanError(
                'a stage that selects at every step has a function that looks at "last" alone, and no merge'
            )

    @property
    def waits(self) -> bool:
        """Whether carrying it out takes more than the plan: something to look at."""
        return bool(self.look)

    def selected(self, view: View) -> Tensor:
        """What `select` gives for a view, on whichever device it is. Raises `PlanError` for another shape or type."""
        kept = self.select if isinstance(self.select, Tensor) else self.select(view)
        _check_type(kept, self.count)
        return kept

    def merged(self, view: View, kept: Tensor) -> Tensor:
        """What `merge` gives, (count, hidden) of the type and device of `view.hidden`.

        Args:
            kept: (count,) int64, indices into `view.offsets`.

        Raises:
            PlanError: it is of another shape, or no tensor.
        """
        assert self.merge is not None and view.hidden is not None
        merged, shape = self.merge(view, kept), (self.count, view.hidden.shape[1])
        if not isinstance(merged, Tensor) or not merged.is_floating_point() or merged.shape != shape:
            raise PlanError(f"a stage's `merge` gives hidden states of shape {shape}, not {_described(merged)}")
        return merged.to(view.hidden)


@dataclass(frozen=True)
class Plan:
    """What of a sample's visual tokens is left, stage by stage.

    Attributes:
        visual: number of visual tokens in the prompt (300).
        stages: at ascending layers, each with fewer tokens than the one before; the first may keep all. Without stages
            nothing is pruned.

    Raises:
        PlanError: a stage does not fit those before it, or keeps tokens that are not there.
    """

    visual: int
    stages: Sequence[Stage] = ()

    def __post_init__(self) -> None:
        if not _is_count(self.visual):
            raise PlanError(f"a plan's `visual` is an integer from 0 on, not {self.visual!r}")
        object.__setattr__(self, "stages", tuple(self.stages))
        if strange := [stage for stage in self.stages if not isinstance(stage, Stage)]:
            raise PlanError(f"a plan's `stages` are Stage objects, not {type(strange[0]).__name__}")
        if self.stages and self.stages[0].count > self.visual:
            raise PlanError(f"a plan keeps {self.stages[0].count} of {self.visual} visual tokens")
        for before, stage in pairwise(self.stages):
            if stage.layer <= before.layer:
                raise PlanError(f"a plan's stages are at ascending layers, not {before.layer} and then {stage.layer}")
            if stage.count >= before.count:
                raise PlanError(
                    f"each stage of a plan keeps fewer tokens than the one before, not {before.count} and then "
                    f"{stage.count}; leave out a stage that drops nothing"
                )
            if before.every_step:
                raise PlanError("only the last stage of a plan can select at every step")
        there = None  # of all tokens the next stage can keep any
        for stage in self.stages:
            if isinstance(stage.select, Tensor):
                there = self._among(stage.select.cpu(), there)

    def counts(self, layers: int) -> list[int]:
        """How many visual tokens each of the LLM's `layers` layers sees."""
        return layer_counts(layers, self.visual, [(stage.layer, stage.count) for stage in self.stages])

    def ratio(self, layers: int) -> float:
        """Share of visual tokens that are pruned, averaged over the LLM's `layers` layers, from 0 to 1."""
        return pruning_ratio(layers, self.visual, [(stage.layer, stage.count) for stage in self.stages])

    def checked(self, number: int, there: Tensor, kept: Tensor) -> Tensor:
        """The offsets `kept` of stage `number`, on the CPU.

        Args:
            there: (n,) int64, the tokens that are there before the stage, on the CPU.

        Raises:
            PlanError: `kept` is not what `Stage.select` has to be, or holds tokens that are not there any more.
        """
        kept = kept.cpu()
        _check_offsets(kept, self.stages[number].count)
        return self._among(kept, there)

    def resolve(self, number: int, view: View) -> Tensor:
        """The offsets that stage `number` keeps, (count,) int64 on the CPU. Raises `PlanError`, see `checked`."""
        stages = self.stages[: number + 1]
        if all(isinstance(stage.select, Tensor) for stage in stages):  # which were checked against each other
            return stages[-1].selected(view).cpu()
        return self.checked(number, view.offsets.cpu(), self.stages[number].selected(view))

    def check_fit(self, layers: int, visual: int, behind: int = 1) -> None:
        """Raises `PlanError` unless this fits an LLM and a prompt: else each engine would answer something, and not the
        same.

        Args:
            layers: of the LLM; visual: visual tokens of the prompt; behind: tokens of the prompt that follow them.
        """
        if self.visual != visual:
            raise PlanError(f"the plan is for {self.visual} visual tokens, the prompt has {visual}")
        if self.stages and self.stages[-1].layer >= layers:
            raise PlanError(
                f"the plan drops tokens from layer {self.stages[-1].layer} on, the LLM has layers 0..{layers - 1}"
            )

        if self.stages and behind < 1:
            raise PlanError("the prompt ends with visual tokens, of which the last has to stay; put text behind them")

    def _among(self, kept: Tensor, there: Tensor | None) -> Tensor:
        """`kept`. Raises `PlanError` unless all of it is `there`, None for everything; both ascend."""
        offsets = kept.numpy()
        if len(offsets) and offsets[-1] >= self.visual:
            raise PlanError(_not_ascending(kept, f"from 0 to at most {self.visual - 1}"))
        if there is not None and len(there) < self.visual:
            left = np.append(there.numpy(), self.visual)  # so that every offset is found
            if (gone := left[np.searchsorted(left, offsets)] != offsets).any():
                raise PlanError(f"a stage keeps visual token {offsets[gone][0]}, which a stage before it has dropped")
        return kept


def layer_counts(layers: int, visual: int, stages: Iterable[tuple[int, int]]) -> list[int]:
    """How many of `visual` visual tokens each of `layers` layers sees.

    Args:
        stages: (layer, count) of each stage, at ascending layers.
    """
    counts = [visual] * layers
    for layer, count in stages:
        counts[layer:] = [count] * (layers - layer)
    return counts


def pruning_ratio(layers: int, visual: int, stages: Iterable[tuple[int, float]]) -> float:
    """Share of `visual` visual tokens that are pruned, averaged over `layers` layers: (1 - K / L)(1 - count / visual)
    for a stage (K, count), and for each further one what it drops of the rest. 0 without visual tokens."""
    ratio, before = 0.0, float(visual)
    for layer, count in stages if visual else ():
        ratio += (1 - layer / layers) * (before / visual - count / visual)
        before = count
    return ratio


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _described(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _check_type(kept: object, count: int) -> None:
    if not isinstance(kept, Tensor) or kept.dtype != torch.int64 or kept.shape != (count,):
        raise PlanError(f"a stage's kept offsets are {count} numbers of torch.int64, not {_described(kept)}")


def _check_offsets(kept: Tensor, count: int) -> None:
    """Raises `PlanError` unless these are `count` ascending offsets from 0 on."""
    _check_type(kept, count)
    offsets = kept.detach().cpu().numpy()
    if count and not (offsets[0] >= 0 and (offsets[1:] > offsets[:-1]).all()):
        raise PlanError(_not_ascending(kept, "from 0 on"))


def _not_ascending(kept: Tensor, bounds: str) -> str:
    shown = ", ".join(map(str, kept[:8].tolist())) + (", ..." if len(kept) > 8 else "")
    return f"a stage's kept offsets ascend, each once, {bounds}; these do not: {shown}"
