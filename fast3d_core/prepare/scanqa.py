"""ScanQA: questions about a room."""

from typing import Any

from fast3d_core.prepare.draft import Draft, DroppedError, Task
from fast3d_core.prepare.raw import RawRecord
from fast3d_core.prepare.templates import SHORT, answer_text

FILES = (("ScanQA_v1.0_{split}.json", None),)
SOURCE = "https://github.com/ATR-DBI/ScanQA"


def convert(task: Task) -> Draft:
    """Val: a record for each question; train: one for each answer that differs from the one before. In file order."""
    (raw,) = task.files
    draft = Draft()
    for record in raw:
        draft.add([record], _convert, task, record)
    again = sum(len(record.texts("answers")) for record in raw) - len(draft.records)
    if task.split == "train" and again:
        draft.notes.append(f"{again} of the answers are left out: empty, or the same as the one before")
    return draft


def _convert(task: Task, record: RawRecord) -> list[dict[str, Any]]:
    answers = record.texts("answers")
    objects = record.object_ids() if record.has("object_ids") else []
    prompt = record.text("question") + SHORT
    asked = {"scene_id": record.scene(), "obj_id": objects[0] if objects else 0, "prompt": prompt}
    if not any(answers):
        raise DroppedError("no answer")
    if task.split == "val":
        return [asked | {"ref_captions": answers}]
    pairs = zip(["", *answers], answers, strict=False)
    return [asked | {"caption": answer_text(answer)} for before, answer in pairs if answer not in ("", before)]
