"""ScanQA's kind of question: a property of an object, a number, or whether something is there."""

from collections.abc import Callable

import numpy as np

from fast3d_core.benchmarks.wording import SHORT
from fast3d_core.demo.detection import Detection
from fast3d_core.demo.questions.draws import TRIES, pick, pick_weighted
from fast3d_core.demo.questions.names import (
    COLOUR,
    MATERIAL,
    NAMES,
    NUMBERS,
    SIZE,
    article,
    draw_anchor,
    full_name,
    invented,
    name_of,
    nearest,
    own_name,
)
from fast3d_core.demo.questions.question import Answered, Question, sentence
from fast3d_core.demo.questions.refer import refer
from fast3d_core.demo.rooms import COLOURS, KINDS, MATERIALS, Room


def scanqa(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    """A question of a random kind, or None."""
    kind = pick_weighted(rng, _QUESTIONS)
    for _ in range(TRIES):
        found = kind(room, rng)
        if found:
            words, answer, about = found
            return Question("scanqa", words + SHORT, sentence(answer), 0, 0, (answer,), 0, about)
    return None


def _colour(room: Room, rng: np.random.Generator) -> Answered:
    found = refer(room, rng, silent=COLOUR)
    return (f"What color is {found[1]}?", COLOURS[room.colours[found[0]]], found[2]) if found else None


def _material(room: Room, rng: np.random.Generator) -> Answered:
    found = refer(room, rng, silent=MATERIAL)
    return (f"What material is {found[1]}?", MATERIALS[room.materials[found[0]]], found[2]) if found else None


def _count(room: Room, rng: np.random.Generator) -> Answered:
    """Rather small numbers are as frequent as the room allows: the number is drawn first."""
    names = [name_of(room, int(rng.random() * len(room)), bits) for bits in (0, 0, 0, COLOUR, MATERIAL, SIZE)]
    members = [np.flatnonzero(name.fits(room)) for name in names]
    count = pick(rng, sorted({len(found) for found in members}))
    name, found = next((name, found) for name, found in zip(names, members, strict=True) if len(found) == count)
    if count >= len(NUMBERS):
        return None
    return f"How many {name.words(plural=True)} are in the room?", NUMBERS[count], tuple(map(int, found))


def _existence(room: Room, rng: np.random.Generator) -> Answered:
    """Yes as often as no, of things drawn alike, so that the words do not give it away."""
    wanted = rng.random() < 0.5
    for _ in range(TRIES):
        kind = int(pick(rng, room.kinds)) if rng.random() < 0.7 else int(rng.random() * len(KINDS))
        name = invented(rng, kind, pick(rng, NAMES))
        found = np.flatnonzero(name.fits(room))
        if bool(len(found)) == wanted:
            answer = "yes" if wanted else "no"
            return f"Is there {article(name.words())} in the room?", answer, tuple(map(int, found))
    return None


def _next(room: Room, rng: np.random.Generator) -> Answered:
    anchor = draw_anchor(room, rng)
    thing = anchor and nearest(room, anchor[0], 7)
    if not anchor or thing is None:
        return None
    return f"What is closest to the {anchor[1]}?", full_name(room, thing), (thing, anchor[0])


def _on(room: Room, rng: np.random.Generator) -> Answered:
    laden = np.flatnonzero(room.on.sum(0) == 1)
    if not len(laden):
        return None
    holder = int(pick(rng, laden))
    words = own_name(room, rng, holder)
    thing = int(room.on[:, holder].argmax())
    return (f"What is on the {words}?", full_name(room, thing), (thing, holder)) if words else None


_QUESTIONS: dict[Callable[[Room, np.random.Generator], Answered], float] = {
    _colour: 0.22,
    _material: 0.1,
    _count: 0.18,
    _existence: 0.2,
    _next: 0.18,
    _on: 0.12,
}
