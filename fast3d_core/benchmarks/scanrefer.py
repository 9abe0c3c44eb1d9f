"""ScanRefer: is the box of the object that the answer names the described one? Acc@0.25 and Acc@0.5."""

from collections.abc import Sequence

import numpy as np

from fast3d_core.benchmarks import boxes
from fast3d_core.benchmarks.records import Record, Score, mean, record_keys
from fast3d_core.benchmarks.references import References
from fast3d_core.mentions import mentioned

THRESHOLDS = (0.25, 0.5)


def score(records: Sequence[Record], references: References) -> Score:
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
    return Score("scanrefer", len(records), metrics, stats, record_keys(records), notes)


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
