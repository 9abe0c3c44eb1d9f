"""The metrics of the five benchmarks, equal to the published scorers' (Chat-Scene's `utils/eval.py`)."""

import difflib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fast3d_core import config
from fast3d_core.benchmarks import captions, multi3dref, scan2cap, scanqa, scanrefer, sqa3d
from fast3d_core.benchmarks.records import Origin, Record, Score
from fast3d_core.benchmarks.references import References
from fast3d_core.benchmarks.remarks import is_unanswered, remarks
from fast3d_core.errors import DataError, UsageError

__all__ = ["DATASETS", "HEADLINES", "Headline", "Origin", "References", "Score", "headline", "score", "statistics"]

DATASETS: tuple[str, ...] = config.DATASETS


@dataclass(frozen=True)
class Headline:
    """The metric that stands for a benchmark in the published tables: its label and its key in `Score.metrics`."""

    label: str
    key: str


HEADLINES = {
    "scanrefer": Headline("ScanRefer Acc@0.5", "[scanrefer] Acc@0.50"),
    "multi3dref": Headline("Multi3DRefer F1@0.5", "[multi3dref] all F1@0.50"),
    "scan2cap": Headline("Scan2Cap BLEU-4@0.5", "[scan2cap] Bleu_4@0.50"),
    "scanqa": Headline("ScanQA BLEU-4", "[scanqa] Bleu_4"),
    "sqa3d": Headline("SQA3D EM-R", "[sqa3d] EM1_refined"),
}


def score(
    dataset: str,
    records: list[dict[str, Any]],
    references: References,
    *,
    meteor: bool = True,
    part: bool = False,
    origin: Origin | None = None,
) -> Score:
    """All metrics of the prediction `records` of one benchmark.

    `meteor=False` leaves METEOR out, which is slow and needs Java. `part=True` says that the records cover part of the
    benchmark on purpose, so that Scan2Cap does not count every other object of its corpus as an empty caption.
    `origin` is where they stand in an annotation file, for errors. Where no question comes with an answer, all metrics
    are None. Raises `UsageError` for an unknown dataset and `DataError` for a record that is damaged or does not fit
    the references.
    """
    _check(dataset)
    if not isinstance(records, list):
        raise DataError(f"{dataset} predictions: they must be a list of records, not {type(records).__name__}")
    checked = [Record(dataset, position, fields, origin) for position, fields in enumerate(records)]
    if is_unanswered(dataset, checked):
        note = f"{dataset}: the questions come without answers, as in test splits, so its scores are null."
        return replace(_score(dataset, [], references, meteor, part), samples=len(records), notes=[note])
    result = _score(dataset, checked, references, meteor, part)
    notes = result.notes + remarks(dataset, checked, references)
    return replace(
        result, notes=notes if records else [f"{dataset}: there are no records, so there is nothing to score."]
    )


def _score(dataset: str, records: list[Record], references: References, meteor: bool, part: bool) -> Score:
    if dataset == "scanrefer":
        return scanrefer.score(records, references)
    if dataset == "multi3dref":
        return multi3dref.score(records, references)
    if dataset == "scan2cap":
        return scan2cap.score(records, references, meteor, part)
    if dataset == "scanqa":
        return scanqa.score(records, meteor)
    return sqa3d.score(records, meteor)


def headline(dataset: str, sums: np.ndarray) -> np.ndarray:
    """The headline metric (...) of summed statistics (..., k), one `Score.stats` row's columns each.

    Sum the rows of any multiset of records, as a bootstrap does, and it is that multiset's score; NaN where a rate has
    no record.
    """
    _check(dataset)
    sums = np.asarray(sums, dtype=np.float64)
    if dataset in ("scan2cap", "scanqa"):
        return captions.bleu(sums)[..., -1]
    with np.errstate(invalid="ignore"):
        return sums[..., 0] / sums[..., 1]


def statistics(dataset: str) -> int:
    """How many columns the statistics of a dataset have, see `Score.stats`."""
    return captions.BLEU_STATS if dataset in ("scan2cap", "scanqa") else 2


def _check(dataset: str) -> None:
    if dataset not in DATASETS:
        near = difflib.get_close_matches(str(dataset), DATASETS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no benchmark {dataset}; choose from {', '.join(DATASETS)}{hint}")
