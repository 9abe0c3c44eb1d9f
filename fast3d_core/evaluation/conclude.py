"""The end of a run: from the journal to prediction files, scores and costs."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core.config import Config
from fast3d_core.data.annotations import Sample, published_order
from fast3d_core.errors import DataError
from fast3d_core.evaluation.asked import wording_notes
from fast3d_core.evaluation.costs import entry_cost, pruned_share
from fast3d_core.evaluation.journal import Entry, Journal
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.evaluation.result import (
    RESULT_FILE,
    Pruning,
    Result,
    SampleCost,
    Spread,
    Timing,
    describe_environment,
    load_result,
    save_result,
)
from fast3d_core.evaluation.scoring import score_predictions
from fast3d_core.files.files import write_json
from fast3d_core.llm.cost import LlmShape, scene_flops
from fast3d_core.llm.engine.backend import choose
from fast3d_core.models.registry import scene_model


def conclude(
    config: Config,
    job: Job,
    questions: Questions,
    journal: Journal,
    device: torch.device,
    processes: int,
    *,
    meteor: bool = True,
) -> Result:
    """Writes predictions/, scores.json and result.json of a run whose batches are all done, and returns the result."""
    # A finished run is scored again: METEOR, or a lookup, may have been missing the first time.
    finished = load_result(journal.folder) if (journal.folder / RESULT_FILE).exists() else None
    done = journal.batches()
    batches = questions.batches(journal.settings["batch_size"])
    if missing := sum(number not in done for number in range(len(batches))):
        raise DataError(f"{journal.folder} lacks {missing} batches; run the same command again")
    shape = scene_model(config).shape_of(config)
    for number, batch in enumerate(batches):
        if not _are_answers(done[number], batch, questions.units.visual, shape.layers):
            raise DataError(
                f"{journal.folder} is damaged: batch {number} of its journal does not answer the questions of that "
                "batch; run again with --restart, or under another --name"
            )
    answered = [done[number] for number in range(len(batches))]
    entries = [entry for batch in answered for entry in batch]
    predictions = _write_predictions(journal.folder, entries, questions)
    part = questions.limit is not None
    scores = score_predictions(predictions, questions.folder, part=part, meteor=meteor)
    seconds, gap_seconds = journal.seconds()
    backend = choose(device, getattr(torch, config.model.dtype), shape)
    attention = backend.name if config.eval.engine == "fast" else "eager"
    result = Result(
        name=job.name,
        method=job.pruner.name,
        settings=journal.settings,
        seed=getattr(job.pruner, "seed", None),
        samples={dataset: len(records) for dataset, records in predictions.items()},
        headline=scores.headline,
        metrics=scores.metrics,
        pruning=_pruning(entries, questions, shape.layers),
        cost=_cost(answered, questions, shape, config),
        timing=Timing(seconds, len(entries) / seconds if seconds else 0.0, gap_seconds if job.live else None),
        environment=finished.environment if finished else describe_environment(device, processes, attention),
        notes=[*wording_notes(questions.samples), *scores.notes],
    )
    save_result(journal.folder, result, scores.stats)
    return result


def _write_predictions(folder: Path, entries: Sequence[Entry], questions: Questions) -> dict[str, list[dict[str, Any]]]:
    """Writes the answers in the published record format, a file a dataset, and returns them."""
    predictions: dict[str, list[dict[str, Any]]] = {dataset: [] for dataset in questions.samples}
    for entry in entries:
        sample = questions.samples[entry.dataset][entry.index]
        predictions[sample.dataset].append(sample.record(entry.pred))
    for dataset, records in predictions.items():
        records.sort(key=published_order)
        write_json(folder / "predictions" / f"{dataset}.json", records)
    return predictions


def _are_answers(entries: Sequence[Entry], batch: Sequence[Sample], visual: int, layers: int) -> bool:
    """Whether these are what `run` writes into the journal for a batch of prompts with `visual` visual tokens, and an
    LLM of `layers` layers."""
    return len(entries) == len(batch) and all(
        (entry.dataset, entry.index) == (sample.dataset, sample.index)
        and entry.tokens >= visual
        and _ascend([*(layer for layer, _ in entry.stages), layers])
        and all(_ascend([*kept, visual]) for _, kept in entry.stages if kept is not None)
        for entry, sample in zip(entries, batch, strict=True)
    )


def _ascend(numbers: Sequence[int]) -> bool:
    return all(one < other for one, other in pairwise(numbers))


def _pruning(entries: Sequence[Entry], questions: Questions, layers: int) -> Pruning | None:
    if not entries:
        return None
    visual = questions.units.visual
    present_tokens: dict[str, Tensor] = {}
    ratios, ratios_present, objects, tokens = [], [], [], []
    for entry in entries:
        scene = questions.samples[entry.dataset][entry.index].scene_id
        if scene not in present_tokens:
            present_tokens[scene] = questions.scenes[scene].present.repeat_interleave(questions.units.tokens)
        kept = range(visual) if entry.kept is None else entry.kept
        ratios.append(100 * pruned_share(entry, layers, visual))
        ratios_present.append(100 * pruned_share(entry, layers, visual, present_tokens[scene]))
        objects.append(len(questions.units.of(kept)))
        tokens.append(len(kept))
    return Pruning(_mean(ratios), _mean(ratios_present), Spread.of(objects), _mean(tokens))


def _cost(
    batches: Sequence[Sequence[Entry]], questions: Questions, shape: LlmShape, config: Config
) -> SampleCost | None:
    entries = [entry for batch in batches for entry in batch]
    if not entries:
        return None
    visual, beams = questions.units.visual, config.generation.beams
    element_bytes = getattr(torch, config.model.dtype).itemsize
    costs = [entry_cost(entry, shape, visual, beams, element_bytes) for entry in entries]
    scenes = sum(
        scene_flops(shape, cached)
        for batch in batches
        for cached in {
            questions.samples[entry.dataset][entry.index].scene_id: entry.cached for entry in batch if entry.cached
        }.values()
    )
    gap_flops = [entry.gap_flops for entry in entries if entry.gap_flops is not None]
    return SampleCost(
        prefill_flops=_mean([c.prefill_flops for c in costs]) + scenes / len(entries),
        decode_flops=_mean([c.decode_flops for c in costs]),
        gap_flops=_mean(gap_flops) if len(gap_flops) == len(entries) else None,
        kv_bytes=_mean([c.kv_bytes for c in costs]),
        prompt_tokens=_mean([entry.tokens for entry in entries]),
        new_tokens=_mean([entry.steps for entry in entries]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(sum(values) / len(values))
