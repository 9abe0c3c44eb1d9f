"""The entry of an answer, and from entries what answers cost and how much was pruned for them."""

from collections.abc import Iterable

from torch import Tensor

from fast3d_core.data.annotations import Sample
from fast3d_core.evaluation.journal import Entry, Stages
from fast3d_core.llm.cost import Cost, LlmShape, cost
from fast3d_core.llm.generation import Generation, Prompt
from fast3d_core.plan import pruning_ratio


def made_entry(
    sample: Sample, prompt: Prompt, generation: Generation, text: str, reuse_scene: bool, gap_flops: float | None
) -> Entry:
    """The entry of a sample that was answered.

    Args:
        text: the answer; reuse_scene: whether the scene's prefix was computed apart from the question.
        gap_flops: of predicting the map; None where none was predicted.
    """
    return Entry(
        dataset=sample.dataset,
        index=sample.index,
        pred=text,
        tokens=len(prompt),
        steps=generation.steps,
        stages=kept_stages(generation.stages, generation.visual),
        cached=prompt.shared if reuse_scene else 0,
        gap_flops=gap_flops,
    )


def kept_stages(stages: Iterable[tuple[int, Tensor]], visual: int) -> Stages:
    """The stages of an entry: layer and offsets of each, None for all of `visual` visual tokens."""
    return tuple((layer, tuple(kept.tolist()) if len(kept) < visual else None) for layer, kept in stages)


def entry_cost(entry: Entry, shape: LlmShape, visual: int, beams: int, element_bytes: int) -> Cost:
    """The cost of an answer to the LLM.

    Args:
        visual: visual tokens of the prompt; element_bytes: of one cached number.
    """
    return cost(
        shape,
        entry.counts(shape.layers, visual),
        text=entry.tokens - visual,
        beams=beams,
        steps=entry.steps,
        element_bytes=element_bytes,
        new=entry.tokens - entry.cached if entry.cached else None,
    )


def pruned_share(entry: Entry, layers: int, visual: int, present: Tensor | None = None) -> float:
    """The share of the visual tokens that was pruned, averaged over the layers; 0 where there are none.

    Args:
        present: (visual,) bool, which visual tokens count; None: all of them.
    """
    if present is None:
        stages = [(layer, visual if kept is None else len(kept)) for layer, kept in entry.stages]
        return pruning_ratio(layers, visual, stages)
    total = int(present.sum())
    return pruning_ratio(
        layers,
        total,
        [(layer, total if kept is None else int(present[list(kept)].sum())) for layer, kept in entry.stages],
    )
