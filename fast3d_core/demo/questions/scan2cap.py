"""Scan2Cap's kind of question: what does an object look like, and where is it?"""

import numpy as np

from fast3d_core.demo.detection import Detection
from fast3d_core.demo.questions.draws import TRIES, pick
from fast3d_core.demo.questions.names import COLOUR, article, name_of, nearest
from fast3d_core.demo.questions.question import Question
from fast3d_core.demo.rooms import COLOURS, KINDS, MATERIALS, SIZES, Room
from fast3d_core.mentions import mention

TEMPLATES = (
    "Describe the appearance of the {}, then elaborate on its positioning relative to other objects in the scene.",
    "Paint a picture of the visual attributes of {}, then explore how it relates spatially to other elements in the "
    "scene.",
    "Capture the essence of the appearance of {}, then analyze its spatial relationships within the scene's context.",
)


def scan2cap(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    """A thing to describe, or None where none has a clear caption."""
    for _ in range(TRIES):
        thing = int(rng.random() * len(room))
        found = captions(room, thing)
        if found:
            slot = int(detection.slots[thing])
            prompt = pick(rng, TEMPLATES).format(mention(slot))
            texts, neighbour = found
            return Question("scan2cap", prompt, texts[0], thing, slot, texts, 0, (thing, neighbour))
    return None


def captions(room: Room, thing: int) -> tuple[tuple[str, ...], int] | None:
    """One to three captions of a thing, and the neighbour that they name: what it stands on, else the nearest.

    None if the nearest is not clear. Depends on nothing random.
    """
    below = np.flatnonzero(room.on[thing])
    neighbour = int(below[0]) if len(below) else nearest(room, thing, COLOUR)
    if neighbour is None:
        return None
    how = "on" if len(below) else "next to"
    place = f"{how} {article(name_of(room, neighbour, COLOUR).words())}"
    kind = KINDS[room.kinds[thing]].name
    size, colour, material = SIZES[room.sizes[thing]], COLOURS[room.colours[thing]], MATERIALS[room.materials[thing]]
    texts = (
        f"This is {article(f'{size} {colour} {material} {kind}')}. It is {place}.",
        f"The {material} {kind} is {size} and {colour}. It is {place}.",
        f"There is {article(f'{size} {colour} {kind}')} {place}.",
    )
    return texts[: 1 + thing % 3], neighbour
