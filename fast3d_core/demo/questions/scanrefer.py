"""ScanRefer's kind of question: which object does a description fit?"""

import numpy as np

from fast3d_core.demo.detection import Detection
from fast3d_core.demo.questions.draws import pick
from fast3d_core.demo.questions.question import Question
from fast3d_core.demo.questions.refer import refer
from fast3d_core.demo.rooms import Room
from fast3d_core.mentions import mention

TEMPLATES = (
    'Share the ID of the object that best fits the description "{}".',
    'Identify the ID of the object that closely aligns with the description "{}".',
    'What is the ID of the object that matches the description "{}"?',
    'Find the object that fits the description "{}" and give its ID.',
)


def scanrefer(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    """A description of one thing, or None where none was found."""
    found = refer(room, rng)
    if not found:
        return None
    thing, words, about = found
    slot = int(detection.slots[thing])
    answer = f"{mention(slot)}."
    return Question("scanrefer", pick(rng, TEMPLATES).format(words), answer, thing, slot, (answer,), 0, about)
