"""Multi3DRefer: which boxes does a description mean, none, one or several? F1 at IoU 0.25 and 0.5."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from fast3d_core.benchmarks import boxes
from fast3d_core.benchmarks.base import Benchmark, Metric
from fast3d_core.benchmarks.records import MOST_IDS, REPAIR, Record, Score, mean, record_keys
from fast3d_core.benchmarks.references import References
from fast3d_core.benchmarks.scanrefer import names_one
from fast3d_core.benchmarks.wording import Wording
from fast3d_core.data.annotations import Sample
from fast3d_core.mentions import mentioned

THRESHOLDS = (0.25, 0.5)
TYPES = ("zt_w_d", "zt_wo_d", "st_w_d", "st_wo_d", "mt")  # zero, single, multiple targets; with(out) distractors
ZERO_TARGET = ("zt_w_d", "zt_wo_d")

# fmt: off
_PROMPTS = (
    'Are there any objects fitting the description of "<description>"? If so, kindly provide the IDs for those '
    "objects.",
    'Do any objects match the description of "<description>"? If they do, please share the IDs of those objects.',
    'Is there anything that matches the description "<description>"? If yes, please share the IDs of those objects.',
    'Are there objects that correspond to the description "<description>"? If there are, kindly list their IDs.',
    'Does anything fit the description of "<description>"? If it does, could you list the IDs for those objects?',
    'Are there objects described as "<description>"? If there are, please provide the IDs for those objects.',
    'Have any objects been described as "<description>"? If so, please share the IDs of those objects.',
    'Do any objects meet the criteria of "<description>"? If they do, kindly provide the IDs of those objects.',
    'Are there objects with the attributes of "<description>"? If there are, please list their IDs.',
    'Are there any objects that correspond to the description "<description>"? If yes, could you share the IDs for '
    "those objects?",
)
# fmt: on


class Multi3DRefer(Benchmark):
    """Name the objects that a description means: none, one or several. A record's references are their ids."""

    name = "multi3dref"
    title = "Multi3DRefer"
    hyphenated = "Multi-\n3DRefer"
    headline = Metric("F1@0.5", "[multi3dref] all F1@0.50")
    on_detected_boxes = True
    type_field = "eval_type"
    wording = Wording(_PROMPTS, task="ground-all")
    maker = "fast3d_core.prepare.multi3dref:Multi3DReferMaker"

    def measure(self, records: Sequence[Record], references: References, *, meteor: bool, part: bool) -> Score:
        """Mean F1 at both thresholds over all records and over each evaluation type that occurs."""
        f1 = f1_scores(records, references)
        kinds = np.array([record.choice("type_info", TYPES) for record in records], dtype=object)
        metrics = _means("all", f1)
        for kind in TYPES:
            if (kinds == kind).any():
                metrics |= _means(kind, f1[kinds == kind])
        stats = np.stack([f1[:, 1], np.ones(len(records))], axis=1)
        return Score(self.name, len(records), metrics, stats, record_keys(records), [])

    def remarks(self, records: Sequence[Record], references: References) -> list[str]:
        """Answers none of which names an object."""
        meant = [record for record in records if record.fields["type_info"] not in ZERO_TARGET]
        if not meant or any(names_one(record, references) for record in records):
            return []
        return [
            f"{self.name}: none of {len(records)} answers names an object of its scene as <OBJxxx>, though "
            f"{len(meant)} questions mean some."
        ]

    def is_unanswered(self, records: Sequence[Record]) -> bool:
        """A question may mean no object: then its type says so."""
        some = any(record.fields.get("type_info") not in ZERO_TARGET for record in records)
        return some and super().is_unanswered(records)

    def expected(self, sample: Sample) -> list[str] | None:
        """The objects are the answer."""
        return None

    def targets(self, sample: Sample) -> Sequence[Any]:
        """The references are ids."""
        return sample.ref_captions

    def appended(self, sample: Sample, draw: int) -> str:
        """Nothing: the references are no text."""
        return ""


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
