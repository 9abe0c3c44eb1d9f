"""The end of a run: from the journal to prediction files, scores and costs."""

from collections.abc import Sequence
from typing import Any

import torch

from fast3d_core.config import Config
from fast3d_core.data.annotations import Sample, published_order
from fast3d_core.errors import DataError
from fast3d_core.evaluation.asked import wording_notes
from fast3d_core.evaluation.journal import Journal
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
from fast3d_core.llm.engine.attention import backend
from fast3d_core.models.registry import scene_model
from fast3d_core.plan import LlmShape, cost, pruning_ratio, scene_flops


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
    # A finished run is scored anew: METEOR, or a lookup, may have been missing the first time.
    finished = load_result(journal.folder) if (journal.folder / RESULT_FILE).exists() else None
    done = journal.batches()
    batches = questions.batches(journal.settings["batch_size"])
    if missing := sum(number not in done for number in range(len(batches))):
        raise DataError(f"{journal.folder} lacks {missing} batches; run the same command again")
    entries = []
    for number, batch in enumerate(batches):
        if not _are_answers(done[number], batch, questions.units.visual):
            raise DataError(
                f"{journal.folder} is damaged: batch {number} of its journal does not answer the questions of that "
                "batch; run again with --restart, or under another --name"
            )
        entries += done[number]
    predictions: dict[str, list[dict[str, Any]]] = {dataset: [] for dataset in questions.samples}
    for entry in entries:
        sample = questions.samples[entry["dataset"]][entry["index"]]
        predictions[sample.dataset].append(sample.record(entry["pred"]))
    for dataset, records in predictions.items():
        records.sort(key=published_order)
        write_json(journal.folder / "predictions" / f"{dataset}.json", records)
    part = questions.limit is not None
    scores = score_predictions(predictions, questions.folder, part=part, meteor=meteor)
    shape = scene_model(config).shape_of(config)
    seconds, gap_seconds = journal.seconds()
    attention = backend(device, getattr(torch, config.model.dtype), shape) if config.eval.engine == "fast" else "eager"
    result = Result(
        name=job.name,
        method=job.pruner.name,
        settings=journal.settings,
        seed=getattr(job.pruner, "seed", None),
        samples={dataset: len(records) for dataset, records in predictions.items()},
        headline=scores.headline,
        metrics=scores.metrics,
        pruning=_pruning(entries, questions, shape.layers),
        cost=_cost([done[number] for number in range(len(batches))], questions, shape, config),
        timing=Timing(seconds, len(entries) / seconds if seconds else 0.0, gap_seconds if job.live else None),
        environment=finished.environment if finished else describe_environment(device, processes, attention),
        notes=[*wording_notes(questions.samples), *scores.notes],
    )
    save_result(journal.folder, result, scores.stats)
    return result


def _are_answers(entries: list[dict[str, Any]], batch: Sequence[Sample], visual: int) -> bool:
    """Whether these are what `run` writes into the journal for a batch."""
    return len(entries) == len(batch) and all(
        _is_answer(entry, sample, visual) for entry, sample in zip(entries, batch, strict=True)
    )


def _is_answer(entry: dict[str, Any], sample: Sample, visual: int) -> bool:
    kept = entry.get("kept")
    return (
        (entry.get("dataset"), entry.get("index")) == (sample.dataset, sample.index)
        and isinstance(entry.get("pred"), str)
        and all(_is_count(entry.get(name)) for name in ("tokens", "steps", "layer"))
        and _is_count(entry.get("known", 0))
        and entry["tokens"] >= visual
        and "kept" in entry
        and (kept is None or (isinstance(kept, list) and len(kept) <= visual))
        and all(type(token) is int and 0 <= token < visual for token in kept or ())
        and type(entry.get("gap_flops", 0)) in (int, float)
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10**6


def _pruning(entries: list[dict[str, Any]], questions: Questions, layers: int) -> Pruning | None:
    if not entries:
        return None
    visual = questions.units.visual
    present_tokens = {}
    ratios, ratios_present, objects, tokens = [], [], [], []
    for entry in entries:
        scene = questions.samples[entry["dataset"]][entry["index"]].scene_id
        if scene not in present_tokens:
            present_tokens[scene] = questions.scenes[scene].present.repeat_interleave(questions.units.tokens)
        present = present_tokens[scene]
        kept = torch.arange(visual) if entry["kept"] is None else torch.tensor(entry["kept"])
        ratios.append(100 * pruning_ratio(layers, entry["layer"], visual, len(kept)))
        ratios_present.append(100 * pruning_ratio(layers, entry["layer"], int(present.sum()), int(present[kept].sum())))
        objects.append(len(questions.units.of(kept.tolist())))
        tokens.append(len(kept))
    return Pruning(_mean(ratios), _mean(ratios_present), Spread.of(objects), _mean(tokens))


def _cost(
    batches: list[list[dict[str, Any]]], questions: Questions, shape: LlmShape, config: Config
) -> SampleCost | None:
    entries = [entry for batch in batches for entry in batch]
    if not entries:
        return None
    visual = questions.units.visual
    costs = [
        cost(
            shape,
            layer=entry["layer"],
            text=entry["tokens"] - visual,
            visual=visual,
            count=visual if entry["kept"] is None else len(entry["kept"]),
            beams=config.generation.beams,
            steps=entry["steps"],
            element_bytes=getattr(torch, config.model.dtype).itemsize,
            known=entry.get("known", 0),
        )
        for entry in entries
    ]
    scenes = sum(
        scene_flops(shape, known)
        for batch in batches
        for known in {
            questions.samples[entry["dataset"]][entry["index"]].scene_id: entry["known"]
            for entry in batch
            if "known" in entry
        }.values()
    )
    return SampleCost(
        prefill_flops=_mean([c.prefill_flops for c in costs]) + scenes / len(entries),
        decode_flops=_mean([c.decode_flops for c in costs]),
        gap_flops=_mean([entry["gap_flops"] for entry in entries])
        if all("gap_flops" in entry for entry in entries)
        else None,
        kv_bytes=_mean([c.kv_bytes for c in costs]),
        prompt_tokens=_mean([entry["tokens"] for entry in entries]),
        new_tokens=_mean([entry["steps"] for entry in entries]),
    )


def _mean(values: "list[float] | list[int]") -> float:
    return float(sum(values) / len(values))
