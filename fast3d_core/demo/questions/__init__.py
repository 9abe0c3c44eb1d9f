"""Questions about a room, one file a task, whose answers follow from the room without ambiguity.

A thing is named by its class and any of size, colour and material; an anchor, a thing that others are described by, has
a name that fits nothing else. A comparison is drawn only if it is clear, by `clear` or by the unclear cases of `Room`.
"""

import numpy as np

from fast3d_core.demo.detection import Detection
from fast3d_core.demo.questions.multi3dref import answer_ids, multi3dref
from fast3d_core.demo.questions.question import Question
from fast3d_core.demo.questions.scan2cap import scan2cap
from fast3d_core.demo.questions.scanqa import scanqa
from fast3d_core.demo.questions.scanrefer import scanrefer
from fast3d_core.demo.questions.sqa3d import sqa3d
from fast3d_core.demo.questions.words import WORDS
from fast3d_core.demo.rooms import Room

__all__ = ["WORDS", "Question", "answer_ids", "draw_question"]

_TASKS = {
    "scanrefer": scanrefer,
    "multi3dref": multi3dref,
    "scan2cap": scan2cap,
    "scanqa": scanqa,
    "sqa3d": sqa3d,
}


def draw_question(room: Room, detection: Detection, rng: np.random.Generator, task: str) -> Question | None:
    """A random question of the task (`fast3d_core.config.DATASETS`); None if the room, or the draw, has none."""
    return _TASKS[task](room, detection, rng)
