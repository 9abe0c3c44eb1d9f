"""ScanRefer: name the object that a description means."""

from pathlib import Path
from typing import Any

from fast3d_core.benchmarks.scanrefer import ScanRefer
from fast3d_core.benchmarks.unique_multiple import build_unique_multiple, label_edition
from fast3d_core.mentions import mention
from fast3d_core.prepare.boxes import TOO_FAR, TRAIN_IOU
from fast3d_core.prepare.maker import EMPTY, Draft, DroppedError, RecordMaker, Task
from fast3d_core.prepare.raw import RawRecord, Releases, read_records

LABELS = "scannetv2-labels.combined.tsv"
LOOKUP = "scanrefer_unique_multiple_lookup.json"


class ScanReferMaker(RecordMaker):
    """Makes ScanRefer's records."""

    files = (("ScanRefer_filtered_{split}.json", None),)
    source = "https://github.com/daveredrum/ScanRefer"

    def convert(self, task: Task) -> Draft:
        """A record for each description, sorted by scene and object.

        Train asks for the detected box itself, which overlaps the object by half at least; val for the ground-truth
        object, with the best detected box as reference, however good that is.
        """
        (raw,) = task.files
        draft = Draft()
        # As published: 1000 before 101.
        for record in sorted(raw, key=lambda one: f"{one.scene()}_{one.object_id():03}"):
            draft.add([record], _convert, task, record)
        return draft

    def lookups(self, folder: Path, releases: Releases) -> tuple[dict[Path, Any], list[str]]:
        """The unique/multiple lookup, unless there is one: the published one is of the same objects."""
        path = folder / LOOKUP
        if path.exists():
            return {}, []
        labels = releases.find(LABELS)
        if labels is None:
            note = (
                f"without ScanNet's {LABELS} in {releases.folder}, {LOOKUP} is not made, and "
                "ScanRefer is not split into unique and multiple"
            )
            return {}, [note]
        lookup, edition = unique_multiple(labels, releases), label_edition(labels)
        return {path: lookup}, [f"{LOOKUP} is by {edition}"] if edition else []


def _convert(task: Task, record: RawRecord) -> list[dict[str, Any]]:
    scene, index, description = record.scene(), record.object_id(), record.text("description")
    if not description.strip():
        raise DroppedError(EMPTY)
    overlap = task.boxes.overlap(scene, [index])[0]
    slot = int(overlap.argmax())
    prompt = task.prompt(ScanRefer.wording, description, record.position)
    if task.split == "val":
        return [{"scene_id": scene, "obj_id": index, "ref_captions": [f"{mention(slot)}."], "prompt": prompt}]
    if overlap[slot] < TRAIN_IOU:
        raise DroppedError(TOO_FAR)
    return [{"scene_id": scene, "obj_id": slot, "caption": f"{mention(slot)}.", "prompt": prompt}]


def unique_multiple(labels: Path, releases: Releases) -> dict[str, dict[str, int]]:
    """The lookup of `fast3d_core.benchmarks.references`, over the ScanRefer files that are there, train and val."""
    lookup: dict[str, dict[str, int]] = {}
    for split in ("train", "val"):
        path = releases.find(ScanReferMaker.files[0][0].format(split=split))
        if path:
            for record in read_records(path):
                _ = record.scene(), record.object_id()  # these go into the lookup: only as they should be
            lookup |= build_unique_multiple(labels, path)
    return lookup
