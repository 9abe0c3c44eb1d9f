"""Batches from questions as text to answers as text, by our engine or by stock transformers: one with every part timed,
or several in a row."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fast3d_core.bench.baselines import kept_at_start, stock_generate, without_pruned
from fast3d_core.bench.subject import Batch, Subject, predicted_maps
from fast3d_core.config import GenerationConfig
from fast3d_core.evaluation.overlap import Ready, answer_all
from fast3d_core.evaluation.planner import Planner
from fast3d_core.llm.generation import Generation, Prompt
from fast3d_core.plan import Plan
from fast3d_core.pruning import Pruner
from fast3d_core.runtime.stopwatch import Stopwatch


@dataclass(frozen=True)
class Pass:
    """A batch that was answered.

    Attributes:
        seconds: of the parts gap, prompts, prefill, decode and text, and of all of them, end_to_end.
        plans: of each sample; kept: offsets of the visual tokens that each sample's last layer saw.
    """

    batch: Batch
    prompts: list[Prompt]
    plans: list[Plan]
    kept: list[Tensor]
    seconds: dict[str, float]


def fast_pass(
    subject: Subject, pruner: Pruner, batch: Batch, settings: GenerationConfig, reuse_scene: bool = False
) -> Pass:
    """By the fast engine, as `SceneModel.generate` does it."""
    engine = subject.model.engine
    watch = Stopwatch(subject.model.device)
    plans, prompts = _prepare(subject, pruner, batch, watch.mark)
    state = engine.prefill(prompts, plans, settings, reuse_scene)
    watch.mark("prefill")
    generations = engine.decode(state, subject.model.bos_id, subject.model.eos_id)
    watch.mark("decode")
    _texts(subject, [generation.ids for generation in generations])
    watch.mark("text")
    steps = {generation.steps for generation in generations}
    assert steps == {settings.max_new_tokens}, steps
    kept = [generation.kept for generation in generations]
    return Pass(batch, prompts, plans, kept, watch.seconds())


def in_a_row(
    subject: Subject, pruner: Pruner, batches: Sequence[Batch], settings: GenerationConfig, reuse_scene: bool = False
) -> list[float]:
    """Seconds from the end of a batch to that of the next, of all but the first and the last.

    They are answered as `fast3d eval` answers them: while a GPU decodes one, the next is prepared, GAP's part included,
    and the last one's texts are made. The last batch is prepared only: so every timed one had a batch behind it.
    """
    model = subject.model
    ends = []

    def prepare(number: int) -> Ready:
        batch = batches[number]
        plans, prompts = _prepare(subject, pruner, batch)
        return Ready(number, batch.samples, plans, prompts, 0.0)

    def answer(ready: Ready, meanwhile: Callable[[], None]) -> list[Generation]:
        if ready.number == len(batches) - 1:
            return []
        generations = model.generations(
            ready.prompts, ready.plans, settings, reuse_scene=reuse_scene, meanwhile=meanwhile
        )
        ends.append(time.perf_counter())  # answers are on the CPU, so the GPU is done
        return generations

    def finish(ready: Ready, generations: list[Generation]) -> None:
        _texts(subject, [generation.ids for generation in generations])

    answer_all(range(len(batches)), prepare, answer, finish, model.device)
    return [end - begin for begin, end in pairwise(ends)]


def stock_pass(
    subject: Subject, pruner: Pruner, batch: Batch, settings: GenerationConfig, attentions: bool = False
) -> Pass:
    """By stock transformers, without the tokens that are pruned; the plans drop at layer 0 alone."""
    watch = Stopwatch(subject.model.device)
    plans, prompts = _prepare(subject, pruner, batch, watch.mark)
    rows = [without_pruned(prompt, plan) for prompt, plan in zip(prompts, plans, strict=True)]
    ids = stock_generate(
        subject.model.llm,
        rows,
        settings,
        subject.model.bos_id,
        subject.model.eos_id,
        attentions=attentions,
        first_scores=lambda: watch.mark("prefill"),
    )
    watch.mark("decode")
    _texts(subject, ids)
    watch.mark("text")
    assert {len(one) for one in ids} == {settings.max_new_tokens}
    return Pass(batch, prompts, plans, [kept_at_start(plan) for plan in plans], watch.seconds())


@torch.inference_mode()
def _prepare(
    subject: Subject, pruner: Pruner, batch: Batch, mark: Callable[[str], None] = lambda _: None
) -> tuple[list[Plan], list[Prompt]]:
    model = subject.model
    maps = None
    if pruner.needs_map:
        assert subject.gap is not None
        maps = predicted_maps(subject.gap, batch)
        mark("gap")
    plans = Planner(pruner, model.units, subject.context(batch))(batch.samples, maps)
    scenes = [batch.scenes[sample.scene_id] for sample in batch.samples]
    prompts = model.prompts(scenes, [sample.prompt for sample in batch.samples])
    mark("prompts")
    return plans, prompts


def _texts(subject: Subject, answers: Sequence[list[int]]) -> None:
    for ids in answers:
        subject.model.decode(ids)
