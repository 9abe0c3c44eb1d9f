"""SQA3D: questions about a room from where somebody stands in it."""

from typing import Any

from fast3d_core.benchmarks.sqa3d import SQA3D
from fast3d_core.prepare.answers import answer_text
from fast3d_core.prepare.maker import Draft, DroppedError, RecordMaker, Task
from fast3d_core.prepare.raw import RawRecord

_TYPES = ("what", "is", "how", "can", "which")
OTHER = len(_TYPES)


class SQA3DMaker(RecordMaker):
    """Makes SQA3D's records."""

    files = (
        ("v1_balanced_questions_{split}_scannetv2.json", "questions"),
        ("v1_balanced_sqa_annotations_{split}_scannetv2.json", "annotations"),
    )
    source = "https://zenodo.org/records/7792397"

    def convert(self, task: Task) -> Draft:
        """A record for each annotation, in file order, with one of the ways in which its situation is put.

        Train learns one of the answers, drawn where there are several.
        """
        questions, annotations = task.files
        asked = {question.question_id(): question for question in questions}
        draft = Draft()
        for record in annotations:
            draft.add([record], _convert, task, record, asked)
        return draft


def question_type(question: str) -> int:
    """SQA3D's type, by how the question starts: what, is, how, can, which, other."""
    start = question.lstrip().lower()
    return next((number for number, word in enumerate(_TYPES) if start.startswith(word)), OTHER)


def _convert(task: Task, record: RawRecord, asked: dict[int | str, RawRecord]) -> list[dict[str, Any]]:
    scene, answers = record.scene(), [answer.text("answer") for answer in record.parts("answers")]
    question = asked.get(record.question_id())
    if question is None:
        raise DroppedError("no question of its question_id")
    if not any(answers):
        raise DroppedError("no answer")
    situations = [question.text("situation"), *question.texts("alternative_situation")]
    words = question.text("question")
    asked_about = f"{task.choose(situations, record.position, 'situation')} {words}"
    prompt = task.prompt(SQA3D.wording, asked_about, record.position)
    converted: dict[str, Any] = {"scene_id": scene, "obj_id": 0, "prompt": prompt}
    if task.split == "val":
        return [converted | {"ref_captions": answers, "sqa_type": question_type(words)}]
    caption = answer_text(task.choose([answer for answer in answers if answer], record.position, "answer"))
    return [converted | {"caption": caption, "sqa_type": question_type(words)}]
