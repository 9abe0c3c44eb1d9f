"""ScanQA: questions about a room."""

from typing import Any

from fast3d_core.benchmarks.scanqa import ScanQA
from fast3d_core.prepare.answers import answer_text
from fast3d_core.prepare.maker import Draft, DroppedError, RecordMaker, Task
from fast3d_core.prepare.raw import RawRecord


class ScanQAMaker(RecordMaker):
    """Makes ScanQA's records."""

    files = (("ScanQA_v1.0_{split}.json", None),)
    source = "https://github.com/ATR-DBI/ScanQA"

    def convert(self, task: Task) -> Draft:
        """In file order. Val: a record for each question; train: for each answer that differs from the one before."""
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
    prompt = task.prompt(ScanQA.wording, record.text("question"), record.position)
    asked = {"scene_id": record.scene(), "obj_id": objects[0] if objects else 0, "prompt": prompt}
    if not any(answers):
        raise DroppedError("no answer")
    if task.split == "val":
        return [asked | {"ref_captions": answers}]
    pairs = zip(["", *answers], answers, strict=False)
    return [asked | {"caption": answer_text(answer)} for before, answer in pairs if answer not in ("", before)]
