"""Scan2Cap: describe a detected object, in ScanRefer's words."""

from collections import defaultdict
from typing import Any

from fast3d_core.benchmarks.scan2cap import Scan2Cap
from fast3d_core.mentions import mention
from fast3d_core.prepare.answers import capitalize_sentences
from fast3d_core.prepare.boxes import TOO_FAR, TRAIN_IOU
from fast3d_core.prepare.maker import EMPTY, Draft, DroppedError, RecordMaker, Task
from fast3d_core.prepare.raw import RawRecord
from fast3d_core.prepare.scanrefer import ScanReferMaker


class Scan2CapMaker(RecordMaker):
    """Makes Scan2Cap's records of ScanRefer's."""

    files = ScanReferMaker.files
    source = ScanReferMaker.source

    def convert(self, task: Task) -> Draft:
        """A record for each described object (val) or description (train), sorted by scene and object.

        Each detected box is for the described object that it overlaps most, and each object is asked for by the best of
        its boxes; an object that is no box's best is left out. Train keeps what overlaps by half at least, val all.
        """
        draft = Draft()
        (raw,) = task.files
        draft.add([record for record in raw if _is_empty(record)], _leave_out)
        by_scene: dict[str, dict[int, list[RawRecord]]] = defaultdict(dict)
        for scene, index in sorted(described := _described(task)):
            by_scene[scene][index] = described[scene, index]
        for scene, objects in by_scene.items():
            lacks = {index: task.boxes.lack(scene, index) for index in objects}
            matches = _match(task, scene, [index for index in objects if not lacks[index]])
            for index, records in objects.items():
                draft.add(records, _convert, task, scene, index, records, lacks[index], matches.get(index))
        return draft

    def beside(self, task: Task) -> dict[str, Any]:
        """The corpus of the val split, what the metrics compare with: all captions of each described object, by
        "scene|object".

        Each is wrapped in "sos ... eos", as the published scorer wraps predictions.
        """
        if task.split != "val":
            return {}
        described = _described(task)
        corpus = {
            f"{scene}|{index}": [f"sos {caption} eos" for caption in _captions(described[scene, index])]
            for scene, index in sorted(described)
        }
        return {"scan2cap_val_corpus.json": corpus}


def _described(task: Task) -> dict[tuple[str, int], list[RawRecord]]:
    (raw,) = task.files
    described = defaultdict(list)
    for record in raw:
        key = record.scene(), record.object_id()
        if not _is_empty(record):
            described[key].append(record)
    return described


def _is_empty(record: RawRecord) -> bool:
    return not record.text("description").strip()


def _leave_out() -> list[dict[str, Any]]:
    raise DroppedError(EMPTY)


def _captions(records: list[RawRecord]) -> list[str]:
    return [capitalize_sentences(record.text("description")) for record in records]


def _match(task: Task, scene: str, objects: list[int]) -> dict[int, tuple[int, float]]:
    """The box and the IoU of each object that has one. Of equals, the first object and the first box count."""
    best: dict[int, tuple[int, float]] = {}
    if objects:
        overlap = task.boxes.overlap(scene, objects)
        for slot, row in enumerate(overlap.argmax(0)):
            if objects[row] not in best or overlap[row, slot] > best[objects[row]][1]:
                best[objects[row]] = slot, float(overlap[row, slot])
    return best


def _convert(
    task: Task, scene: str, index: int, records: list[RawRecord], lack: str | None, match: tuple[int, float] | None
) -> list[dict[str, Any]]:
    if lack or not match:
        raise DroppedError(lack or "no detected box overlaps it most")
    captions = _captions(records)
    slot, overlap = match
    if task.split == "val":
        return [_record(task, scene, index, slot, 0) | {"ref_captions": captions, "iou": overlap}]
    if overlap < TRAIN_IOU:
        raise DroppedError(TOO_FAR)
    return [
        _record(task, scene, index, slot, number) | {"caption": caption, "iou": overlap}
        for number, caption in enumerate(captions)
    ]


def _record(task: Task, scene: str, index: int, slot: int, number: int) -> dict[str, Any]:
    prompt = task.prompt(Scan2Cap.wording, mention(slot), scene, index, number)
    return {"scene_id": scene, "obj_id": index, "pred_id": slot, "prompt": prompt}
