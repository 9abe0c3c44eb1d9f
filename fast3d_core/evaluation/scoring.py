"""Predictions, ours or anybody's, in the published record format, to scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fast3d_core.config import DATASETS
from fast3d_core.data.files import load_json, need
from fast3d_core.errors import DataError
from fast3d_core.evaluation.result import DatasetStats, Result
from fast3d_core.metrics import HEADLINES, References, score


def score_predictions(
    predictions: Mapping[str, list[dict[str, Any]]], annotations: Path, *, part: bool = False, meteor: bool = True
) -> tuple[dict[str, float | None], dict[str, float | None], dict[str, DatasetStats], list[str]]:
    """Scores the records of each dataset against the references in `annotations`.

    Args:
        part: the records cover part of the samples on purpose (`--limit`), so Scan2Cap is scored over the objects that
            are described, not over the whole corpus.
        meteor: whether to compute METEOR, which takes a Java program seconds to start.

    Returns:
        headline scores in percent by dataset, all metrics by published name, headline statistics, and notes.
    """
    references = References(annotations)
    headlines: dict[str, float | None] = {}
    metrics: dict[str, float | None] = {}
    stats: dict[str, DatasetStats] = {}
    notes: list[str] = []
    for dataset, records in predictions.items():
        scored = score(dataset, records, references, part=part, meteor=meteor)
        value = scored.metrics.get(HEADLINES[dataset].key)
        headlines[dataset] = None if value is None else 100 * value
        metrics |= scored.metrics
        stats[dataset] = DatasetStats(scored.keys, scored.stats)
        notes += [note for note in scored.notes if note not in notes]
    return headlines, metrics, stats, notes


def read_predictions(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The prediction files of a folder, `<dataset>.json` or `preds_*<dataset>.json`, in the published column order.

    A run folder is read from its `predictions/`. Raises `DataError` if there is none, or several for one dataset.
    """
    need(folder, "predictions")
    inner = folder / "predictions"
    folder = inner if inner.is_dir() else folder
    found: dict[str, list[dict[str, Any]]] = {}
    for dataset in DATASETS:
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
) -> tuple[Result, dict[str, DatasetStats]]:
    """The scores of a folder of predictions, without a model; `datasets` restricts them."""
    predictions = read_predictions(folder)
    if datasets:
        if missing := [dataset for dataset in datasets if dataset not in predictions]:
            raise DataError(f"{folder} holds no predictions for {', '.join(missing)}")
        predictions = {dataset: predictions[dataset] for dataset in datasets}
    headlines, metrics, stats, notes = score_predictions(predictions, annotations, meteor=meteor)
    result = Result(
        name=folder.resolve().name,
        method=None,
        settings={},
        seed=None,
        samples={dataset: len(records) for dataset, records in predictions.items()},
        headline=headlines,
        metrics=metrics,
        notes=notes,
    )
    return result, stats
