"""ScanRefer: is the box of the object that the answer names the described one? Acc@0.25 and Acc@0.5."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from fast3d_core.benchmarks import boxes
from fast3d_core.benchmarks.base import Benchmark, Concern, Metric
from fast3d_core.benchmarks.records import Record, Score, mean, record_keys
from fast3d_core.benchmarks.references import References
from fast3d_core.benchmarks.wording import Wording
from fast3d_core.data.annotations import Sample
from fast3d_core.mentions import mentioned

THRESHOLDS = (0.25, 0.5)

# fmt: off
_PROMPTS = (
    'Share the ID of the object that best fits the description "<description>".',
    'Kindly provide the ID of the object that closely matches the description "<description>".',
    'What is the ID of the object that aligns with the description "<description>"?',
    'Identify the ID of the object that closely resembles the description "<description>".',
    'What\'s the ID of the object that corresponds to the description "<description>"?',
    'Give the ID of the object that most accurately describes the description "<description>".',
    'Share the ID of the object that best corresponds to the description "<description>".',
    'Identify the ID of the object that closely aligns with the description "<description>".',
    'What is the ID of the object that matches the description "<description>"?',
)
# fmt: on


class ScanRefer(Benchmark):
    """Name the object that a description means."""

    name = "scanrefer"
    title = "ScanRefer"
    hyphenated = "Scan-\nRefer"
    headline = Metric("Acc@0.5", "[scanrefer] Acc@0.50")
    on_detected_boxes = True
    of_an_object = True
    wording = Wording(_PROMPTS, task="ground")
    maker = "fast3d_core.prepare.scanrefer:ScanReferMaker"
    sizes: ClassVar = {"val": {"descriptions": 9508, "objects": 2068, "scenes": 141}}

    def measure(self, records: Sequence[Record], references: References, *, meteor: bool, part: bool) -> Score:
        """Accuracy at both thresholds, over all and over the unique and the multiple objects.

        The answer is the first id that is an instance of the scene; where there is none, instance 0 is scored.
        """
        hits = overlaps(records, references)[:, None] >= THRESHOLDS  # (n, 2)
        metrics = _accuracies("", hits)
        notes = []
        lookup = references.unique_multiple if records else {}  # of no records, whatever the file: it may be damaged
        if lookup is None:
            notes.append(
                "ScanRefer: the unique/multiple split is null: the annotations folder holds neither "
                "scanrefer_unique_multiple_lookup.json nor the two files that it is made of."
            )
            splits = {"Unique": np.zeros(len(records), bool), "Multiple": np.zeros(len(records), bool)}
        else:
            multiple = np.array([_is_multiple(record, lookup) for record in records], dtype=bool)
            splits = {"Unique": ~multiple, "Multiple": multiple}
            if references.labels:
                notes.append(f"ScanRefer: Unique and Multiple are by {references.labels}.")
            notes += [
                f"ScanRefer: {name} is null: no record is of a {name.lower()} object."
                for name, chosen in splits.items()
                if not chosen.any()
            ]
        for name, chosen in splits.items():
            metrics |= _accuracies(f"{name} ", hits[chosen])
        stats = np.stack([hits[:, 1], np.ones(len(records))], axis=1).astype(np.float64)
        return Score(self.name, len(records), metrics, stats, record_keys(records), notes)

    def remarks(self, records: Sequence[Record], references: References) -> list[str]:
        """Answers that name no object."""
        lost = sum(not names_one(record, references) for record in records)
        if not lost:
            return []
        return [
            f"{self.name}: {lost} of {len(records)} answers name no object of their scene as <OBJxxx>; as published, "
            "the first object is scored for them."
        ]

    def concerns(self, samples: Sequence[Sample], references: References, published: bool) -> Iterator[Concern]:
        """A lookup that is not there."""
        if references.unique_multiple is None:
            yield Concern(
                f"{self.name}: there is no scanrefer_unique_multiple_lookup.json, so Unique and Multiple stay null",
                "`fast3d prepare` makes it from ScanRefer and ScanNet's label table; the headline does not need it",
            )

    def described(self, samples: Sequence[Sample], references: References) -> str:
        """How they are split, by which the editions of ScanNet's label table differ."""
        lookup, labels = references.unique_multiple, references.labels
        if lookup is None:
            return ""
        multiple = sum(lookup[sample.scene_id][str(sample.obj_id)] for sample in samples)
        return f", {len(samples) - multiple} unique, {multiple} multiple" + (f", by {labels}" if labels else "")


def names_one(record: Record, references: References) -> bool:
    """Whether an answer names an object of its scene."""
    count = len(record.boxes(references.instances))
    return any(index < count for index in mentioned(record.text("pred")))


def overlaps(records: Sequence[Record], references: References) -> np.ndarray:
    """(n,) IoU of the box that each record names with the ground truth's."""
    named, truth = [], []
    for record in records:
        count = len(record.boxes(references.instances))
        chosen = next((index for index in mentioned(record.text("pred")) if index < count), 0)
        named.append(record.box(references.instances, chosen, "the object that is scored"))
        truth.append(record.box(references.objects, record.index("gt_id"), "gt_id"))
    return boxes.iou(np.reshape(named, (-1, 6)), np.reshape(truth, (-1, 6)))


def _accuracies(split: str, hits: np.ndarray) -> dict[str, float | None]:
    return {
        f"[scanrefer] {split}Acc@{threshold:.2f}": mean(hits[:, column]) for column, threshold in enumerate(THRESHOLDS)
    }


def _is_multiple(record: Record, lookup: dict[str, dict[str, int]]) -> bool:
    scene, index = record.text("scene_id"), str(record.index("gt_id"))
    value = lookup.get(scene, {}).get(index)
    if value is None:
        raise record.error(
            f"object {index} of {scene[:80]} is not in the unique/multiple lookup ({record.called('gt_id')})",
            "use the lookup (or the ScanRefer annotations) that the predictions are for",
        )
    return value != 0
