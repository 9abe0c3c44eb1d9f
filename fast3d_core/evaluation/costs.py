"""The entry of an answer, and from entries what answers cost and how much was pruned for them."""

from torch import Tensor

from fast3d_core.data.annotations import Sample
from fast3d_core.evaluation.journal import Entry
from fast3d_core.llm.weights import Generation, Prompt
from fast3d_core.plan import Cost, LlmShape, Plan, cost


def made_entry(
    sample: Sample,
    prompt: Prompt,
    plan: Plan,
    generation: Generation,
    text: str,
    reuse_scene: bool,
    gap_flops: float | None,
) -> Entry:
    """The entry of a sample that was answered.

    Args:
        text: the answer; reuse_scene: whether the scene's prefix was computed apart from the question.
        gap_flops: of predicting the map; None where none was predicted.
    """
    kept = tuple(generation.kept.tolist()) if len(generation.kept) < plan.visual else None
    return Entry(
        dataset=sample.dataset,
        index=sample.index,
        pred=text,
        tokens=len(prompt),
        steps=generation.steps,
        stages=((plan.layer, kept),),
        cached=prompt.shared if reuse_scene else 0,
        gap_flops=gap_flops,
    )


def entry_cost(entry: Entry, shape: LlmShape, visual: int, beams: int, element_bytes: int) -> Cost:
    """The cost of an answer to the LLM.

    Args:
        visual: visual tokens of the prompt; element_bytes: of one cached number.
    """
    layer, kept = entry.stages[0] if entry.stages else (0, None)
    return cost(
        shape,
        layer=layer,
        text=entry.tokens - visual,
        visual=visual,
        count=visual if kept is None else len(kept),
        beams=beams,
        steps=entry.steps,
        element_bytes=element_bytes,
        known=entry.cached,
    )


def pruned_share(entry: Entry, layers: int, visual: int, present: Tensor | None = None) -> float:
    """The share of the visual tokens that was pruned, averaged over the layers; 0 where there are none.

    Args:
        present: (visual,) bool, which visual tokens count; None: all of them.
    """
    if present is None:
        total, counts = visual, entry.counts(layers, visual)
    else:
        total = int(present.sum())
        counts = [total] * layers
        for layer, kept in entry.stages:
            seen = total if kept is None else int(present[list(kept)].sum())
            counts[layer:] = [seen] * (layers - layer)
    return 1 - sum(counts) / (layers * total) if total else 0.0
