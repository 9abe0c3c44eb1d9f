"""Multi3DRefer: which boxes does a description mean, none, one or several? F1 at IoU 0.25 and 0.5."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from fast3d_core.benchmarks import boxes
from fast3d_core.benchmarks.records import MOST_IDS, REPAIR, Record, Score, mean, record_keys
from fast3d_core.benchmarks.references import References
from fast3d_core.mentions import mentioned

THRESHOLDS = (0.25, 0.5)
TYPES = ("zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt")  # zero, single, multiple targets; with(out) distractors
ZERO_TARGET = ("zt_w_d", "zt_wo_d")


def score(records: Sequence[Record], references: References) -> Score:
    """Mean F1 at both thresholds over all records and over each evaluation type that occurs."""
    f1 = f1_scores(records, references)
    kinds = np.array([record.choice("type_info", TYPES) for record in records], dtype=object)
    metrics = _means("all", f1)
    for kind in TYPES:
        if (kinds == kind).any():
            metrics |= _means(kind, f1[kinds == kind])
    stats = np.stack([f1[:, 1], np.ones(len(records))], axis=1)
    return Score("multi3dref", len(records), metrics, stats, record_keys(records), [])


def f1_scores(records: Sequence[Record], references: References) -> np.ndarray:
    """(n, 2) F1 of each record at IoU 0.25 and 0.5.

    An id beyond the scene's instances is dropped, a repeated id is kept and costs precision. A zero-target record
    scores 1 if no id is left, else 0. The IoUs are compared in float32, as published (see `boxes.iou`).
    """
    f1 = np.zeros((len(records), len(THRESHOLDS)))
    for position, record in enumerate(records):
        instances = record.boxes(references.instances)
        named = [index for index in mentioned(record.text("pred")) if index < len(instances)]
        if len(named) > MOST_IDS:
            raise record.error(f"pred names {len(named)} objects", f"{MOST_IDS} can be meant at most")
        targets = record.indices("ref_captions")
        if record.choice("type_info", TYPES) in ZERO_TARGET:
            f1[position] = not named
            continue
        if not targets:
            raise record.error(f"ref_captions is empty, but {record.called('type_info')} has a target", REPAIR)
        objects = np.stack([record.box(references.objects, index, "a target in ref_captions") for index in targets])
        if named:
            overlap = boxes.iou(instances[named][:, None], objects)
            f1[position] = 2 * _true_positives(overlap) / (len(named) + len(targets))
    return f1


def _true_positives(overlap: np.ndarray) -> np.ndarray:
    """(2,) pairs at or above each threshold in the assignment of greatest total IoU."""
    # Padded to a square as in the published scorer, so that a tie is broken as it was there.
    square = np.zeros((max(overlap.shape),) * 2, dtype=np.float32)
    square[: overlap.shape[0], : overlap.shape[1]] = overlap
    matched = square[linear_sum_assignment(square, maximize=True)]
    return np.count_nonzero(matched[:, None] >= THRESHOLDS, axis=0)


def _means(kind: str, f1: np.ndarray) -> dict[str, float | None]:
    return {f"[multi3dref] {kind} F1@{threshold:.2f}": mean(f1[:, i]) for i, threshold in enumerate(THRESHOLDS)}
