"""From timed batches to a row of the result."""

from collections.abc import Sequence
from dataclasses import asdict
from statistics import fmean, median

from fast3d_core.bench.measure import Machine, Work, read_bytes
from fast3d_core.bench.passes import Pass
from fast3d_core.bench.result import BenchRow, KeptTokens, Roofline, RooflineTime, SampleFlops, Times
from fast3d_core.bench.subject import Subject, gap_flops
from fast3d_core.config import GenerationConfig
from fast3d_core.evaluation.result import Spread
from fast3d_core.llm.cost import cost, scene_flops
from fast3d_core.pruning import Pruner


def build_row(
    name: str,
    pruner: Pruner,
    passes: Sequence[Pass],
    row_seconds: Sequence[float],
    subject: Subject,
    settings: GenerationConfig,
    machine: Machine,
    *,
    baseline: bool,
    reuse_scene: bool,
    warmup: float,
    memory: int | None,
) -> BenchRow:
    """The row of these batches, all of one size, and of others that were answered in a row (none for baselines)."""
    size, steps = len(passes[0].kept), settings.max_new_tokens - 1
    parts = {part: Times.of([one.seconds[part] for one in passes]) for part in passes[0].seconds}
    in_a_row = Times.of(row_seconds) if row_seconds else None
    total = (in_a_row or parts["end_to_end"]).median
    works = [] if baseline else _works(passes, pruner, subject, settings, reuse_scene)
    return BenchRow(
        name=name,
        baseline=baseline,
        reuse_scene=reuse_scene,
        batch=size,
        samples=size * len(passes),
        settings=asdict(pruner),
        warmup_seconds=warmup,
        gap_seconds=parts.get("gap"),
        prompt_seconds=parts["prompts"],
        prefill_seconds=parts["prefill"],
        step_seconds=Times.of([one.seconds["decode"] / steps for one in passes]) if steps else None,
        text_seconds=parts["text"],
        end_to_end_seconds=parts["end_to_end"],
        in_a_row_seconds=in_a_row,
        samples_per_second=size / total,
        ms_per_sample=1000 * total / size,
        peak_memory_bytes=memory,
        kept=_kept(passes, subject),
        flops=_flops(works, size) if works else None,
        roofline=_roofline(passes, works, total, machine, steps) if works else None,
    )


def _kept(passes: Sequence[Pass], subject: Subject) -> KeptTokens:
    layers = subject.model.shape.layers
    kept = [offsets for one in passes for offsets in one.kept]
    ratio = fmean(100 * plan.ratio(layers) for one in passes for plan in one.plans)
    objects = [len(subject.model.units.of(offsets.tolist())) for offsets in kept]
    return KeptTokens(ratio, fmean(map(len, kept)), Spread.of(objects))


def _works(
    passes: Sequence[Pass], pruner: Pruner, subject: Subject, settings: GenerationConfig, reuse_scene: bool
) -> list[Work]:
    """What each batch costs; a scene that is reused is read in the first batch that asks about it."""
    read, works = set[int](), []
    for one in passes:
        new = {id(prompt.prefix): prompt.shared for prompt in one.prompts if id(prompt.prefix) not in read}
        scenes = sum(scene_flops(subject.model.shape, tokens) for tokens in new.values()) if reuse_scene else 0
        works.append(_work(one, pruner, subject, settings, reuse_scene, scenes))
        read |= new.keys()
    return works


def _work(
    done: Pass, pruner: Pruner, subject: Subject, settings: GenerationConfig, reuse_scene: bool, scenes: float
) -> Work:
    shape, element_bytes = subject.model.shape, subject.model.llm.dtype.itemsize
    costs = [
        [
            cost(
                shape,
                plan.counts(shape.layers),
                text=len(prompt) - prompt.visual,
                beams=settings.beams,
                steps=steps,
                element_bytes=element_bytes,
                new=len(prompt) - prompt.shared if reuse_scene else None,
            )
            for prompt, plan in zip(done.prompts, done.plans, strict=True)
        ]
        for steps in range(1, settings.max_new_tokens + 1)
    ]
    gap = subject.gap if pruner.needs_map else None
    return Work(
        costs=costs,
        scene_flops=scenes,
        llm_bytes=read_bytes(shape, element_bytes),
        gap_flops=sum(gap_flops(gap, done.batch)) if gap else 0,
        gap_bytes=gap.read_bytes if gap else 0,
    )


def _flops(works: Sequence[Work], size: int) -> SampleFlops:
    gap, scenes = (fmean(flops) / size for flops in zip(*((w.gap_flops, w.scene_flops) for w in works), strict=True))
    return SampleFlops(
        gap=gap or None,
        prefill=scenes + fmean(one.prefill_flops for work in works for one in work.costs[-1]),
        decode=fmean(one.decode_flops for work in works for one in work.costs[-1]),
    )


def _roofline(passes: Sequence[Pass], works: Sequence[Work], total: float, machine: Machine, steps: int) -> Roofline:
    gap, prefill, decode = (
        [seconds(work) for work in works]
        for seconds in (machine.gap_roofline, machine.prefill_roofline, machine.decode_roofline)
    )

    def of(part: str, rooflines: Sequence[float], share: int = 1) -> RooflineTime:
        times = median(one.seconds[part] / roofline for one, roofline in zip(passes, rooflines, strict=True))
        return RooflineTime(fmean(rooflines) / share, times)

    everything = fmean(sum(parts) for parts in zip(gap, prefill, decode, strict=True))
    return Roofline(
        gap=of("gap", gap) if "gap" in passes[0].seconds else None,
        prefill=of("prefill", prefill),
        step=of("decode", decode, steps) if steps else None,
        end_to_end=RooflineTime(everything, total / everything),
    )
