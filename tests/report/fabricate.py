"""Run folders of known scores, without a model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import Config
from fast3d_core.data.annotations import Sample
from fast3d_core.evaluation.costs import kept_stages, pruned_share
from fast3d_core.evaluation.journal import Entry, Journal
from fast3d_core.evaluation.result import (
    DatasetStats,
    Environment,
    Pruning,
    Result,
    SampleCost,
    Spread,
    Timing,
    save_result,
)
from fast3d_core.evaluation.scoring import score_predictions
from fast3d_core.files.files import write_json
from fast3d_core.files.fingerprints import fingerprint
from fast3d_core.maps.published import map_file
from fast3d_core.plan import Units
from fast3d_core.pruning import PlanRequest, Pruner
from fast3d_core.pruning.options import run_name
from tests.maps.scores import load_maps

Hits = dict[str, Sequence[float]]


def stats_of(hits: Hits, order: Sequence[int] | None = None, first: int = 0) -> dict[str, DatasetStats]:
    """A score of 0..1 a sample becomes a row of statistics, also of BLEU's: 4 n-grams of each order, all or none hit.

    Sample i has the key "q<first + i>"; `order` permutes the rows.
    """
    made = {}
    for dataset, values in hits.items():
        array = np.asarray(values, dtype=np.float64)
        ones = np.ones_like(array)
        bleu = dataset in ("scan2cap", "scanqa")
        columns = [4 * array] * 4 + [4 * ones] * 6 if bleu else [array, ones]
        rows = np.stack(columns, axis=1)
        keys = [f"q{first + i}" for i in range(len(array))]
        chosen = range(len(array)) if order is None else order
        made[dataset] = DatasetStats([keys[i] for i in chosen], rows[list(chosen)])
    return made


def make_run(
    folder: Path,
    name: str,
    method: str | None,
    hits: Hits,
    *,
    ratio: float = 0.0,
    flops: float = 2e12,
    gap_flops: float | None = None,
    device: str = "cpu: x",
    order: Sequence[int] | None = None,
    first: int = 0,
) -> Path:
    """A complete run folder; `method` None makes scored predictions, which have no cost."""
    measured = (
        {}
        if method is None
        else {
            "pruning": Pruning(ratio, ratio, Spread(1.0, 1.0, 1.0, 1.0), 300 - 3 * ratio),
            "cost": SampleCost(flops * 0.75, flops * 0.25, gap_flops, 1.0, 1.0, 1.0),
            "timing": Timing(10.0, 1e13 / flops),
            "environment": Environment(device, 1, None, "3", {}, None),
        }
    )
    stats = stats_of(hits, order, first)
    samples = {dataset: len(entry.keys) for dataset, entry in stats.items()}
    save_result(folder / name, Result(name, method, {}, None, samples, {}, {}, **measured), stats)
    return folder / name


def bernoulli(mean: float, n: int, seed: int) -> list[float]:
    """Exactly round(mean x n) hits among n, shuffled."""
    hits = np.zeros(n)
    hits[: round(mean * n)] = 1
    return np.random.default_rng(seed).permutation(hits).tolist()


def answered_run(
    config: Config, pruner: Pruner, answer: Callable[[Sample], str], *, name: str | None = None, layers: int = 4
) -> Path:
    """A complete run of a method over all questions of a config, whose answers come from `answer`, not from a model."""
    annotations, objects = config.data.annotations, config.data.max_objects
    samples = {dataset: load_samples(annotations, dataset) for dataset in config.data.datasets}
    files = [annotation_file(annotations, dataset) for dataset in samples]
    maps = {}
    if pruner.needs_map:
        files += [map_file(config.maps.predicted, dataset) for dataset in samples]
        maps = {dataset: load_maps(config.maps.predicted, dataset) for dataset in samples}
    settings = {"method": pruner.name, **asdict(pruner), "files": {path.name: fingerprint(path) for path in files}}
    folder = config.runs / (name or run_name(pruner))
    journal = Journal(folder, settings)
    journal.open()
    entries = []
    for batch, (dataset, found) in enumerate(samples.items()):
        done = []
        for sample in found:
            plan = pruner.plan(
                PlanRequest(dataset, sample.index, Units(objects, 3), maps[dataset][sample.index] if maps else None)
            )
            # Stages that look at the LLM's attention keep everything here.
            stages = [(stage.layer, stage.select) for stage in plan.stages if isinstance(stage.select, Tensor)]
            done.append(Entry(dataset, sample.index, answer(sample), 400, 3, kept_stages(stages, plan.visual)))
        journal.append(0, 0, batch, 1.0, done)
        entries += done
    predictions = {
        dataset: [samples[dataset][e.index].record(e.pred) for e in entries if e.dataset == dataset]
        for dataset in samples
    }
    scores = score_predictions(predictions, annotations, meteor=False)
    counts = [3 * objects if entry.kept is None else len(entry.kept) for entry in entries]
    ratio = float(np.mean([100 * pruned_share(entry, layers, 3 * objects) for entry in entries]))
    result = Result(
        name=folder.name,
        method=pruner.name,
        settings=settings,
        seed=None,
        samples={dataset: len(found) for dataset, found in samples.items()},
        headline=scores.headline,
        metrics=scores.metrics,
        pruning=Pruning(ratio, ratio, Spread.of([count / 3 for count in counts]), float(np.mean(counts))),
        cost=SampleCost(1e12 * (1 - ratio / 120), 1e11, None, 1.0, 1.0, 1.0),
        timing=Timing(10.0, 10.0 + ratio),
    )
    save_result(folder, result, scores.stats)
    return folder


def right_answer(sample: Sample) -> str:
    """The first reference answer, as a model would give it; to Multi3DRefer's questions, no object."""
    return "No." if sample.dataset == "multi3dref" else str(sample.ref_captions[0])


def long_answers(config: Config) -> None:
    """ScanQA asks for four words, which BLEU-4, and so the score ratio, takes."""
    path = annotation_file(config.data.annotations, "scanqa")
    write_json(path, [record | {"ref_captions": ["it is dark brown"]} for record in json.loads(path.read_text())])
