"""What is to be said of answers that a benchmark can score, but hardly as they were meant."""

from collections.abc import Sequence

from fast3d_core.benchmarks.multi3dref import ZERO_TARGET
from fast3d_core.benchmarks.records import Record
from fast3d_core.benchmarks.references import References
from fast3d_core.mentions import mentioned


def remarks(dataset: str, records: Sequence[Record], references: References) -> list[str]:
    """One line each; the records have been scored, so their fields are what they should be."""
    if not records:
        return []
    notes = []
    if empty := sum(not record.text("pred").strip() for record in records):
        notes.append(f"{dataset}: {empty} of {len(records)} answers are empty.")
    if dataset == "scanrefer" and (lost := sum(not _names_one(record, references) for record in records)):
        notes.append(
            f"{dataset}: {lost} of {len(records)} answers name no object of their scene as <OBJxxx>; as published, the "
            "first object is scored for them."
        )
    if dataset == "multi3dref":
        meant = [record for record in records if record.fields["type_info"] not in ZERO_TARGET]
        if meant and not any(_names_one(record, references) for record in records):
            notes.append(
                f"{dataset}: none of {len(records)} answers names an object of its scene as <OBJxxx>, though "
                f"{len(meant)} questions mean some."
            )
    return notes


def is_unanswered(dataset: str, records: Sequence[Record]) -> bool:
    """Whether no question comes with an answer to score against, as in test splits.

    ScanRefer's answer is the object's box; Scan2Cap's, its corpus.
    """
    if not records:
        return False
    if dataset in ("scanrefer", "scan2cap"):
        return all(record.fields.get("gt_id") == -1 for record in records)
    if any(record.fields.get("ref_captions") not in (None, []) for record in records):
        return False
    return dataset != "multi3dref" or any(record.fields.get("type_info") not in ZERO_TARGET for record in records)


def _names_one(record: Record, references: References) -> bool:
    count = len(record.boxes(references.instances))
    return any(index < count for index in mentioned(record.text("pred")))
