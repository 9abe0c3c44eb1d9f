"""Predictions, ours or anybody's, in the published record format, to scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fast3d_core.benchmarks import References, benchmark, benchmark_names
from fast3d_core.errors import DataError, UsageError
from fast3d_core.evaluation.asked import compare
from fast3d_core.evaluation.result import RESULT_FILE, DatasetStats, Result, load_result, save_result
from fast3d_core.evaluation.run_folder import SETTINGS_FILE, check_name
from fast3d_core.files.files import load_json, need
from fast3d_core.files.locks import sole_use


@dataclass(frozen=True)
class Scores:
    """The scores of predictions.

    Attributes:
        headline: in percent by dataset; metrics: all, by published name; null where they cannot be computed.
        stats: headline statistics; notes: remarks, one line each.
        errors: why a dataset was not scored, which costs no other dataset its scores; `notes` has them, too.
    """

    headline: dict[str, float | None]
    metrics: dict[str, float | None]
    stats: dict[str, DatasetStats]
    notes: list[str]
    errors: dict[str, DataError]


def score_predictions(
    predictions: Mapping[str, list[dict[str, Any]]], annotations: Path, *, part: bool = False, meteor: bool = True
) -> Scores:
    """Scores the records of each dataset against the references in `annotations`.

    Args:
        part: the records cover part of the samples on purpose (`--limit`), so Scan2Cap is scored over the objects that
            are described, not over the whole corpus.
        meteor: whether to compute METEOR, which takes a Java program seconds to start.
    """
    references = References(annotations)
    scores = Scores({}, {}, {}, [], {})
    for dataset, records in predictions.items():
        try:
            scored = benchmark(dataset).score(records, references, part=part, meteor=meteor)
        except DataError as error:
            scored = replace(benchmark(dataset).score([], references), notes=[f"{dataset}: not scored: {error}"])
            scores.errors[dataset] = error
        value = scored.metrics.get(benchmark(dataset).headline.key)
        scores.headline[dataset] = None if value is None else 100 * value
        scores.metrics.update(scored.metrics)
        scores.stats[dataset] = DatasetStats(scored.keys, scored.stats)
        scores.notes.extend(note for note in scored.notes if note not in scores.notes)
    return scores


def read_predictions(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The prediction files of a folder, `<dataset>.json` or `preds_*<dataset>.json`, in the published column order.

    A run folder is read from its `predictions/`. Raises `DataError` if there is none, or several for one dataset.
    """
    need(folder, "predictions")
    inner = folder / "predictions"
    folder = inner if inner.is_dir() else folder
    found: dict[str, list[dict[str, Any]]] = {}
    for dataset in benchmark_names():
        paths = sorted({*folder.glob(f"{dataset}.json"), *folder.glob(f"preds_*{dataset}.json")})
        if len(paths) > 1:
            raise DataError(f"{folder} holds several prediction files for {dataset}: {paths[0].name}, {paths[1].name}")
        if paths:
            found[dataset] = load_json(paths[0], "predictions")
    if not found:
        raise DataError(f"{folder} holds no prediction files named <dataset>.json or preds_*<dataset>.json")
    return found


def score_folder(
    folder: Path, annotations: Path, datasets: Sequence[str] | None = None, *, meteor: bool = True
) -> tuple[Result, Scores]:
    """The scores of a folder of predictions, without a model; `datasets` restricts them.

    Raises `DataError` where no dataset can be scored; for some of them, see `Scores.errors`.
    """
    predictions = read_predictions(folder)
    if datasets:
        if missing := [dataset for dataset in datasets if dataset not in predictions]:
            raise DataError(f"{folder} holds no predictions for {', '.join(missing)}")
        predictions = {dataset: predictions[dataset] for dataset in datasets}
    scores = score_predictions(predictions, annotations, meteor=meteor)
    if len(scores.errors) == len(predictions):
        raise next(iter(scores.errors.values()))
    compared = [
        compare(dataset, records, annotations)
        for dataset, records in predictions.items()
        if dataset not in scores.errors
    ]
    result = Result(
        name=folder.resolve().name,
        method=None,
        settings={},
        seed=None,
        samples={d: 0 if d in scores.errors else len(records) for d, records in predictions.items()},
        headline=scores.headline,
        metrics=scores.metrics,
        notes=[*scores.notes, *(note for notes in compared for note in notes)],
    )
    return result, scores


def score_to_run(
    folder: Path,
    annotations: Path,
    runs: Path,
    name: str | None,
    datasets: Sequence[str] | None = None,
    *,
    meteor: bool,
) -> tuple[Result, Scores]:
    """`score_folder`, with the result written to a run folder of that name under `runs`, if there is a name.

    Raises:
        UsageError: `name` is a path, or the name of a run of `fast3d eval`; another command is at work there.
        DataError: see `score_folder`; what is in the run folder is no result of ours.
    """
    check_name(name)
    if name is None:
        return score_folder(folder, annotations, datasets, meteor=meteor)
    run = runs / name
    with sole_use(run, other="choose another --name"):
        if (run / SETTINGS_FILE).exists():
            raise UsageError(f"{name} is a run of `fast3d eval`; choose another --name")
        if (run / RESULT_FILE).exists():
            load_result(run)  # raises where it is not ours to replace
        result, scores = score_folder(folder, annotations, datasets, meteor=meteor)
        result = replace(result, name=name)
        save_result(run, result, scores.stats)
    return result, scores
