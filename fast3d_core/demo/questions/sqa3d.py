"""SQA3D's kind of question: what somebody who stands in the room sees, has on a side, or can reach."""

from dataclasses import dataclass

import numpy as np

from fast3d_core.benchmarks.wording import SHORT
from fast3d_core.demo.detection import Detection
from fast3d_core.demo.questions.draws import TRIES, pick
from fast3d_core.demo.questions.names import NUMBERS, clear, draw_anchor, own_name
from fast3d_core.demo.questions.question import Answered, Question, sentence
from fast3d_core.demo.rooms import KINDS, Room

_FRONT, _LEFT, _BEHIND, _RIGHT = range(4)
SIDES = ("in front of me", "on my left", "behind me", "on my right")
DIRECTIONS = ("forward", "left", "backward", "right")
_BORDER = np.radians(10)  # a thing so near to two sides' border is on neither
_AT_HAND = 0.5  # m; what is so near has no side


@dataclass(frozen=True)
class _View:
    """Where somebody stands, next to the thing `at`, and looks, at the thing `facing`.

    Attributes:
        words: the sentence that says so.
        side: (n,) the quarter each thing is in: 0 front, 1 left, 2 behind, 3 right; -1 unclear, -2 where one stands.
        away: (n,) metres on the floor from the centre of `at`.
    """

    words: str
    at: int
    facing: int
    side: np.ndarray
    away: np.ndarray


def view(room: Room, at: int, facing: int) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the side of each thing and (n,) its distance, see `_View`, for somebody at one thing who faces another."""
    offset = room.boxes[:, :2] - room.boxes[at, :2]
    away = np.hypot(offset[:, 0], offset[:, 1])
    bearing = np.arctan2(offset[:, 1], offset[:, 0])
    quarters = ((bearing - bearing[facing]) / (np.pi / 2)) % 4
    side = np.rint(quarters)
    unclear = (np.abs(quarters - side) > 0.5 - _BORDER / (np.pi / 2)) | (away < _AT_HAND)
    side = np.where(unclear, -1, side % 4)
    side[(room.on[:, at] == 1) | (np.arange(len(room)) == at)] = -2
    return side.astype(int), away


def _stand(room: Room, rng: np.random.Generator) -> _View | None:
    at, facing = draw_anchor(room, rng), draw_anchor(room, rng)
    if not at or not facing:
        return None
    side, away = view(room, at[0], facing[0])
    if away[facing[0]] < 1:
        return None
    words = f"I am standing next to the {at[1]} and facing the {facing[1]}."
    return _View(words, at[0], facing[0], side, away)


def sqa3d(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    """A question from a random place in the room, or None."""
    number = int(rng.random() * len(_QUESTIONS))
    for _ in range(TRIES):
        here = _stand(room, rng)
        found = here and _QUESTIONS[number](room, rng, here)
        if here and found:
            words, answer, about = found
            prompt = f"{here.words} {words}{SHORT}"
            about = (*about, here.at, here.facing)
            return Question("sqa3d", prompt, sentence(answer), 0, 0, (answer,), number, about)
    return None


def _what(room: Room, rng: np.random.Generator, here: _View) -> Answered:
    """The nearest thing on a side, if no other class, and nothing of unclear side, is about as near."""
    side = int(rng.random() * 4)
    inside = np.where(here.side == side, here.away, np.inf)
    thing = int(inside.argmin())
    rivals = ((here.side == side) & (room.kinds != room.kinds[thing])) | (here.side == -1)
    second = here.away[rivals].min(initial=np.inf)
    if thing == here.facing or inside[thing] == np.inf or (second < np.inf and not clear(inside[thing], second)):
        return None
    return f"What is {SIDES[side]}?", KINDS[room.kinds[thing]].name, (thing,)


def _target(room: Room, rng: np.random.Generator, here: _View) -> tuple[int, str] | None:
    """A thing on a clear side, each side as often, with a name of its own."""
    things = np.flatnonzero(here.side == int(rng.random() * 4))
    thing = int(pick(rng, things)) if len(things) else here.facing
    words = own_name(room, rng, thing)
    return (thing, words) if words and thing != here.facing else None


def _is(room: Room, rng: np.random.Generator, here: _View) -> Answered:
    target = _target(room, rng, here)
    if not target:
        return None
    thing, words = target
    side = int(here.side[thing])
    if side % 2 and rng.random() < 0.5:
        return f"Is the {words} on my left or right?", DIRECTIONS[side], (thing,)
    asked = side if rng.random() < 0.5 else (side + int(rng.integers(1, 4))) % 4
    return f"Is the {words} {SIDES[asked]}?", "yes" if asked == side else "no", (thing,)


def _how_many(room: Room, rng: np.random.Generator, here: _View) -> Answered:
    kind, side = int(pick(rng, room.kinds)), int(rng.random() * 4)
    members = room.kinds == kind
    sides = here.side[members]
    count = int((sides == side).sum())
    if (sides < 0).any() or count > 4 or (count == 0 and rng.random() < 0.6):
        return None
    found = np.flatnonzero(members & (here.side == side))
    return f"How many {KINDS[kind].plural} are {SIDES[side]}?", NUMBERS[count], tuple(map(int, found))


def _can(room: Room, rng: np.random.Generator, here: _View) -> Answered:
    wanted = int(rng.random() < 0.62)  # few things are near, so that yes has to be drawn again more often
    things = np.flatnonzero((room.near[here.at] == wanted) & (here.side != -2))
    for thing in rng.permutation(things).tolist():  # until one has a name
        words = own_name(room, rng, thing)
        if words:
            return f"Can I reach the {words} from here?", "yes" if wanted else "no", (thing,)
    return None


def _which(room: Room, rng: np.random.Generator, here: _View) -> Answered:
    target = _target(room, rng, here)
    if not target:
        return None
    thing, words = target
    return f"Which direction should I go to reach the {words}?", DIRECTIONS[here.side[thing]], (thing,)


def _other(room: Room, rng: np.random.Generator, here: _View) -> Answered:
    first, second = draw_anchor(room, rng), draw_anchor(room, rng)
    if not first or not second or here.at in (first[0], second[0]) or room.kinds[first[0]] == room.kinds[second[0]]:
        return None
    near, far = sorted((first[0], second[0]), key=lambda thing: float(room.distances[here.at, thing]))
    if not clear(room.distances[here.at, near], room.distances[here.at, far]):
        return None
    return f"Am I closer to the {first[1]} or the {second[1]}?", KINDS[room.kinds[near]].name, (near, far)


_QUESTIONS = (_what, _is, _how_many, _can, _which, _other)  # in the order of the question types
