"""Multi3DRefer: name the objects that a description means, none, one or several."""

from typing import Any

from fast3d_core.benchmarks.multi3dref import TYPES, ZERO_TARGET, Multi3DRefer
from fast3d_core.prepare.answers import answer_slots
from fast3d_core.prepare.boxes import TOO_FAR, TRAIN_IOU
from fast3d_core.prepare.maker import EMPTY, Draft, DroppedError, RecordMaker, Task
from fast3d_core.prepare.raw import RawRecord


class Multi3DReferMaker(RecordMaker):
    """Makes Multi3DRefer's records."""

    files = (("multi3drefer_{split}.json", None),)
    source = "https://github.com/3dlg-hcvc/M3DRef-CLIP"

    def convert(self, task: Task) -> Draft:
        """A record for each description, in file order.

        Train asks for the best detected box of each object; there, all overlap by half at least, and no two objects
        share one. Val has the ground-truth objects, as the metrics need them.
        """
        (raw,) = task.files
        draft = Draft()
        for record in raw:
            draft.add([record], _convert, task, record)
        return draft


def _convert(task: Task, record: RawRecord) -> list[dict[str, Any]]:
    scene, kind, objects = record.scene(), record.choice("eval_type", TYPES), record.object_ids()
    if (kind in ZERO_TARGET) == bool(objects):
        raise DroppedError(f"object_ids {'name some' if objects else 'are empty'}, eval_type says otherwise")
    description = record.text("description")
    if not description.strip():
        raise DroppedError(EMPTY)
    overlap = task.boxes.overlap(scene, objects)
    prompt = task.prompt(Multi3DRefer.wording, description, record.position)
    converted: dict[str, Any] = {"scene_id": scene, "obj_id": 0, "prompt": prompt}
    if task.split == "val":
        return [converted | {"ref_captions": objects, "eval_type": kind}]
    slots: list[int] = []
    for row in overlap:
        slot = int(row.argmax())
        if row[slot] < TRAIN_IOU:
            raise DroppedError(TOO_FAR)
        if slot in slots:
            raise DroppedError("two objects share a best box")
        slots.append(slot)
    return [converted | {"caption": answer_slots(sorted(slots)), "eval_type": kind}]
