"""Questions about a room, one generator a task, whose answers follow from the room without ambiguity.

A thing is named by its class and any of size, colour and material; an anchor, a thing that others are described by, has
a name that fits nothing else. A comparison is drawn only if it is clear, by `clear` or by the unclear cases of `Room`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fast3d_core.demo.detection import Detection
from fast3d_core.demo.rooms import COLOURS, KINDS, MATERIALS, SIZES, Room

_MATERIAL, _COLOUR, _SIZE = 4, 2, 1  # bits of a name: which attributes it says besides the class
_NAMES = (0, _COLOUR, _SIZE, _MATERIAL, _COLOUR | _SIZE, _COLOUR | _MATERIAL, _SIZE | _MATERIAL, 7)
_TRIES = 12  # draws before a generator gives up
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SHORT = " Answer the question using a single word or phrase."

_SCANREFER = (
    'Share the ID of the object that best fits the description "{}".',
    'Identify the ID of the object that closely aligns with the description "{}".',
    'What is the ID of the object that matches the description "{}"?',
    'Find the object that fits the description "{}" and give its ID.',
)
_MULTI3DREF = (
    'Are there any objects fitting the description of "{}"? If so, kindly provide the IDs for those objects.',
    'Do any objects match the description of "{}"? If they do, please share the IDs of those objects.',
    'Is there anything that matches the description "{}"? If yes, please share the IDs of those objects.',
)
_SCAN2CAP = (
    "Describe the appearance of the {}, then elaborate on its positioning relative to other objects in the scene.",
    "Paint a picture of the visual attributes of {}, then explore how it relates spatially to other elements in the "
    "scene.",
    "Capture the essence of the appearance of {}, then analyze its spatial relationships within the scene's context.",
)
_EVAL_TYPES = {"zt_wo_d": 0.12, "zt_w_d": 0.18, "st_wo_d": 0.12, "st_w_d": 0.28, "mt": 0.3}
_MOST_TARGETS = 5


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        answer: what to learn, in the released training files' form.
        obj_id: the thing that is meant, if it is one (scanrefer, scan2cap); pred_id: the slot that scan2cap names.
        refs: the references to score against; for multi3dref the things that are meant.
        type: multi3dref's eval type, sqa3d's question type, otherwise 0.
        about: the things that the answer rests on, targets and anchors.
    """

    dataset: str
    prompt: str
    answer: str
    obj_id: int
    pred_id: int
    refs: tuple[Any, ...]
    type: str | int
    about: tuple[int, ...]


def ask(room: Room, detection: Detection, rng: np.random.Generator, task: str) -> Question | None:
    """A random question of the task (`fast3d_core.config.DATASETS`); None if the room, or the draw, has none."""
    return _TASKS[task](room, detection, rng)


def clear(first: float, second: float) -> bool:
    """Whether the second of two distances is clearly greater: by 20 cm and by 15%."""
    return second - first >= max(0.2, 0.15 * second)


# Names


@dataclass(frozen=True)
class _Name:
    """A class with some attributes, -1 where it says nothing."""

    kind: int
    size: int = -1
    colour: int = -1
    material: int = -1

    def words(self, plural: bool = False) -> str:
        said = [
            words[index]
            for words, index in ((SIZES, self.size), (COLOURS, self.colour), (MATERIALS, self.material))
            if index >= 0
        ]
        return " ".join([*said, KINDS[self.kind].plural if plural else KINDS[self.kind].name])

    def fits(self, room: Room) -> np.ndarray:
        """(n,) bool."""
        fits = room.kinds == self.kind
        said = ((room.sizes, self.size), (room.colours, self.colour), (room.materials, self.material))
        for values, index in said:
            if index >= 0:
                fits = fits & (values == index)
        return fits


def _name(room: Room, thing: int, bits: int) -> _Name:
    """The name of a thing that says the attributes `bits`."""
    return _Name(
        int(room.kinds[thing]),
        int(room.sizes[thing]) if bits & _SIZE else -1,
        int(room.colours[thing]) if bits & _COLOUR else -1,
        int(room.materials[thing]) if bits & _MATERIAL else -1,
    )


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _pick(rng: np.random.Generator, among: Any) -> Any:
    """One of a non-empty sequence."""
    return among[int(rng.random() * len(among))]


def _some_name(room: Room, rng: np.random.Generator, thing: int) -> _Name:
    """A random name of a thing, fitting others or not; rather a short one."""
    return _name(room, thing, _NAMES[int(rng.random() ** 2 * len(_NAMES))])


def _own_name(room: Room, rng: np.random.Generator, thing: int, silent: int = 0) -> str | None:
    """A name that fits this thing alone and does not say the attributes `silent`: the shortest, or any."""
    alike = _alike(room, thing)
    own = [bits for bits in _NAMES if not bits & silent and alike[bits] == 1]
    if not own:
        return None
    return _name(room, thing, own[0] if rng.random() < 0.7 else _pick(rng, own)).words()


def _alike(room: Room, thing: int) -> np.ndarray:
    """(8,) how many things share the class and the attributes `bits` with this one."""
    key = (
        (room.sizes == room.sizes[thing]) * _SIZE
        + (room.colours == room.colours[thing]) * _COLOUR
        + (room.materials == room.materials[thing]) * _MATERIAL
    )[room.kinds == room.kinds[thing]]
    return _INCLUDES @ np.bincount(key, minlength=8)


_INCLUDES = np.array([[bits & has == bits for has in range(8)] for bits in range(8)]).astype(int)


def _anchor(room: Room, rng: np.random.Generator) -> tuple[int, str] | None:
    """A random thing that has a name of its own, and that name."""
    for _ in range(_TRIES):
        thing = int(rng.random() * len(room))
        words = _own_name(room, rng, thing)
        if words:
            return thing, words
    return None


def _full(room: Room, thing: int) -> str:
    return _name(room, thing, 7).words()


def _obj(slot: int) -> str:
    return f"<OBJ{slot:03}>"


# Descriptions of one thing: (thing, words, what it rests on) or None

_Found = tuple[int, str, tuple[int, ...]] | None


def _by_attributes(room: Room, rng: np.random.Generator, silent: int) -> _Found:
    thing = int(rng.random() * len(room))
    words = _own_name(room, rng, thing, silent)
    return (thing, f"the {words}", (thing,)) if words else None


def _by_distance(room: Room, rng: np.random.Generator, silent: int) -> _Found:
    """ "the chair closest to the blue desk", "the lamp farthest from the bed"."""
    anchor = _anchor(room, rng)
    if not anchor:
        return None
    place, words = anchor
    name = _name(room, int(rng.random() * len(room)), _pick(rng, (0, 0, _COLOUR, _SIZE)) & ~silent)
    members = np.flatnonzero(name.fits(room))
    members = members[members != place]
    if len(members) < 2:
        return None
    distances = room.distances[place, members]
    order = distances.argsort()
    closest = rng.random() < 0.6
    first, second = (order[0], order[1]) if closest else (order[-2], order[-1])
    if not clear(distances[first], distances[second]):
        return None
    thing = int(members[order[0] if closest else order[-1]])
    how = "closest to" if closest else "farthest from"
    return thing, f"the {name.words()} {how} the {words}", (thing, place)


def _by_support(room: Room, rng: np.random.Generator, silent: int) -> _Found:
    """ "the lamp on the desk", "the cabinet under the window"."""
    how, relation = ("on", room.on) if rng.random() < 0.6 else ("under", room.under)
    pairs = np.argwhere(relation == 1)
    if not len(pairs):
        return None
    thing, place = map(int, _pick(rng, pairs))
    words = _own_name(room, rng, place)
    if not words:
        return None
    for bits in _NAMES:
        if not bits & silent:
            name = _name(room, thing, bits)
            if (relation[name.fits(room), place] != 0).sum() == 1:
                return thing, f"the {name.words()} {how} the {words}", (thing, place)
    return None


_SUPERLATIVES = (("tallest", 1.15), ("largest", 1.3), ("smallest", 1.3))  # and by what factor


def _by_superlative(room: Room, rng: np.random.Generator, silent: int) -> _Found:
    """ "the tallest cabinet" (its height), "the largest box", "the smallest red chair" (their volume)."""
    name = _name(room, int(rng.random() * len(room)), _pick(rng, (0, 0, _COLOUR, _MATERIAL)) & ~silent)
    members = np.flatnonzero(name.fits(room))
    if len(members) < 2:
        return None
    how, factor = _pick(rng, _SUPERLATIVES)
    extents = room.boxes[members, 3:]
    values = extents[:, 2] if how == "tallest" else 1 / extents.prod(1) if how == "smallest" else extents.prod(1)
    second, first = values.argsort()[-2:]
    if values[first] < factor * values[second]:
        return None
    thing = int(members[first])
    return thing, f"the {how} {name.words()}", (thing,)


_WAYS = (_by_attributes, _by_attributes, _by_distance, _by_distance, _by_support, _by_superlative)


def _refer(room: Room, rng: np.random.Generator, silent: int = 0) -> _Found:
    """A description of one thing by any means, that does not say the attributes `silent`."""
    way = _pick(rng, _WAYS)  # insisted on, so that those which often fail are not rare
    for attempt in range(_TRIES):
        found = (way if attempt < _TRIES // 2 else _pick(rng, _WAYS))(room, rng, silent)
        if found:
            return found
    return None


def _scanrefer(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    found = _refer(room, rng)
    if not found:
        return None
    thing, words, about = found
    slot = int(detection.slots[thing])
    answer = f"{_obj(slot)}."
    return Question("scanrefer", _pick(rng, _SCANREFER).format(words), answer, thing, slot, (answer,), 0, about)


# Multi3DRefer: descriptions of any number of things


def _multi3dref(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    wanted = _drawn(rng, _EVAL_TYPES)
    for _ in range(2 * _TRIES):
        found = _absent(room, rng, wanted) if wanted[:2] == "zt" else _present(room, rng)
        if not found:
            continue
        words, targets, kind, anchors = found
        others = np.count_nonzero(room.kinds == kind) > len(targets)
        count = min(len(targets), 2)
        if (
            len(targets) <= _MOST_TARGETS
            and wanted == ("zt", "st", "mt")[count] + ("", "_w_d", "_wo_d")[0 if count == 2 else 1 if others else 2]
        ):
            slots = sorted({int(slot) for slot in detection.slots[targets]})
            prompt = _pick(rng, _MULTI3DREF).format(words)
            refs = tuple(int(target) for target in targets)
            return Question("multi3dref", prompt, answer_ids(slots), 0, 0, refs, wanted, (*refs, *anchors))
    return None


def _drawn(rng: np.random.Generator, shares: dict[Any, float]) -> Any:
    return list(shares)[int(np.searchsorted(np.cumsum(list(shares.values())), rng.random(), side="right"))]


def answer_ids(slots: list[int]) -> str:
    """The answer that names these slots, in the released form: "No.", "Yes. <OBJ003> and <OBJ010>." """
    if not slots:
        return "No."
    *most, last = map(_obj, slots)
    if len(most) < 2:
        return f"Yes. {' and '.join([*most, last])}."
    return f"Yes. {', '.join(most)}, and {last}."


_Several = tuple[str, np.ndarray, int, tuple[int, ...]] | None
"""The words, (k,) the things that fit them, their class, and the anchors."""


def _plain(rng: np.random.Generator, name: _Name) -> str:
    """Singular or plural, whatever the number of things, so that the words do not tell it."""
    return _a(name.words()) if rng.random() < 0.5 else name.words(plural=True)


def _present(room: Room, rng: np.random.Generator) -> _Several:
    """ "a red chair", "cups on the desk", "boxes near the large window": any number of things."""
    name = _some_name(room, rng, int(rng.random() * len(room)))
    fits = name.fits(room)
    if rng.random() < 0.5:
        return _plain(rng, name), np.flatnonzero(fits), name.kind, ()
    anchor = _anchor(room, rng)
    if not anchor:
        return None
    place, words = anchor
    how, relation = _pick(rng, (("on", room.on), ("under", room.under), ("near", room.near), ("near", room.near)))
    related = relation[:, place]
    if (related[fits] == -1).any() or (how != "near" and not relation[:, place].any()):
        return None
    return f"{_plain(rng, name)} {how} the {words}", np.flatnonzero(fits & (related == 1)), name.kind, (place,)


def _absent(room: Room, rng: np.random.Generator, wanted: str) -> _Several:
    """Something that is not there: a class, or of a class that is there another size, colour, material or place."""
    kinds = np.flatnonzero((np.bincount(room.kinds, minlength=len(KINDS)) > 0) == (wanted == "zt_w_d"))
    if not len(kinds):
        return None
    if wanted == "zt_w_d" and rng.random() < 0.4:
        return _present(room, rng)
    kind = int(_pick(rng, room.kinds) if wanted == "zt_w_d" else _pick(rng, kinds))
    name = _invented(rng, kind, _pick(rng, _NAMES))
    return _plain(rng, name), np.flatnonzero(name.fits(room)), kind, ()


def _invented(rng: np.random.Generator, kind: int, bits: int) -> _Name:
    """A name with random but plausible attributes."""
    return _Name(
        kind,
        int(rng.random() * len(SIZES)) if bits & _SIZE else -1,
        _pick(rng, KINDS[kind].colours) if bits & _COLOUR else -1,
        _pick(rng, KINDS[kind].materials) if bits & _MATERIAL else -1,
    )


# Scan2Cap


def _scan2cap(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    for _ in range(_TRIES):
        thing = int(rng.random() * len(room))
        found = captions(room, thing)
        if found:
            slot = int(detection.slots[thing])
            prompt = _pick(rng, _SCAN2CAP).format(_obj(slot))
            texts, neighbour = found
            return Question("scan2cap", prompt, texts[0], thing, slot, texts, 0, (thing, neighbour))
    return None


def captions(room: Room, thing: int) -> tuple[tuple[str, ...], int] | None:
    """One to three captions of a thing, and the neighbour that they name: what it stands on, else the nearest.

    None if the nearest is not clear. Depends on nothing random.
    """
    below = np.flatnonzero(room.on[thing])
    neighbour = int(below[0]) if len(below) else _nearest(room, thing, _COLOUR)
    if neighbour is None:
        return None
    how = "on" if len(below) else "next to"
    place = f"{how} {_a(_name(room, neighbour, _COLOUR).words())}"
    kind = KINDS[room.kinds[thing]].name
    size, colour, material = SIZES[room.sizes[thing]], COLOURS[room.colours[thing]], MATERIALS[room.materials[thing]]
    texts = (
        f"This is {_a(f'{size} {colour} {material} {kind}')}. It is {place}.",
        f"The {material} {kind} is {size} and {colour}. It is {place}.",
        f"There is {_a(f'{size} {colour} {kind}')} {place}.",
    )
    return texts[: 1 + thing % 3], neighbour


def _nearest(room: Room, thing: int, bits: int) -> int | None:
    """The nearest other thing, if everything that the name `bits` of it does not fit is clearly farther."""
    distances = room.distances[thing].copy()
    distances[thing] = np.inf
    nearest = int(distances.argmin())
    other = ~_name(room, nearest, bits).fits(room)
    second = distances[other].min(initial=np.inf)
    alone = np.isinf(distances[nearest])
    return None if alone or not (np.isinf(second) or clear(distances[nearest], second)) else nearest


# ScanQA


def _scanqa(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    kind = _drawn(rng, _SCANQA)
    for _ in range(_TRIES):
        found = kind(room, rng)
        if found:
            words, answer, about = found
            return Question("scanqa", words + _SHORT, _sentence(answer), 0, 0, (answer,), 0, about)
    return None


def _sentence(answer: str) -> str:
    return f"{answer[0].upper()}{answer[1:]}."


_Answered = tuple[str, str, tuple[int, ...]] | None
"""The question, its answer, and the things that this rests on."""


def _colour(room: Room, rng: np.random.Generator) -> _Answered:
    found = _refer(room, rng, silent=_COLOUR)
    return (f"What color is {found[1]}?", COLOURS[room.colours[found[0]]], found[2]) if found else None


def _material(room: Room, rng: np.random.Generator) -> _Answered:
    found = _refer(room, rng, silent=_MATERIAL)
    return (f"What material is {found[1]}?", MATERIALS[room.materials[found[0]]], found[2]) if found else None


def _count(room: Room, rng: np.random.Generator) -> _Answered:
    """Rather small numbers are as frequent as the room allows: the number is drawn first."""
    names = [_name(room, int(rng.random() * len(room)), bits) for bits in (0, 0, 0, _COLOUR, _MATERIAL, _SIZE)]
    members = [np.flatnonzero(name.fits(room)) for name in names]
    count = _pick(rng, sorted({len(found) for found in members}))
    name, found = next((name, found) for name, found in zip(names, members, strict=True) if len(found) == count)
    if count >= len(_NUMBERS):
        return None
    return f"How many {name.words(plural=True)} are in the room?", _NUMBERS[count], tuple(map(int, found))


def _existence(room: Room, rng: np.random.Generator) -> _Answered:
    """Yes as often as no, of things drawn alike, so that the words do not tell it."""
    wanted = rng.random() < 0.5
    for _ in range(_TRIES):
        kind = int(_pick(rng, room.kinds)) if rng.random() < 0.7 else int(rng.random() * len(KINDS))
        name = _invented(rng, kind, _pick(rng, _NAMES))
        found = np.flatnonzero(name.fits(room))
        if bool(len(found)) == wanted:
            answer = "yes" if wanted else "no"
            return f"Is there {_a(name.words())} in the room?", answer, tuple(map(int, found))
    return None


def _next(room: Room, rng: np.random.Generator) -> _Answered:
    anchor = _anchor(room, rng)
    thing = anchor and _nearest(room, anchor[0], 7)
    if not anchor or thing is None:
        return None
    return f"What is closest to the {anchor[1]}?", _full(room, thing), (thing, anchor[0])


def _on(room: Room, rng: np.random.Generator) -> _Answered:
    laden = np.flatnonzero(room.on.sum(0) == 1)
    if not len(laden):
        return None
    place = int(_pick(rng, laden))
    words = _own_name(room, rng, place)
    thing = int(room.on[:, place].argmax())
    return (f"What is on the {words}?", _full(room, thing), (thing, place)) if words else None


_SCANQA: dict[Callable[[Room, np.random.Generator], _Answered], float] = {
    _colour: 0.22,
    _material: 0.1,
    _count: 0.18,
    _existence: 0.2,
    _next: 0.18,
    _on: 0.12,
}


# SQA3D

_FRONT, _LEFT, _BEHIND, _RIGHT = range(4)
_SIDES = ("in front of me", "on my left", "behind me", "on my right")
_DIRECTIONS = ("forward", "left", "backward", "right")
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
    at, facing = _anchor(room, rng), _anchor(room, rng)
    if not at or not facing:
        return None
    side, away = view(room, at[0], facing[0])
    if away[facing[0]] < 1:
        return None
    words = f"I am standing next to the {at[1]} and facing the {facing[1]}."
    return _View(words, at[0], facing[0], side, away)


def _sqa3d(room: Room, detection: Detection, rng: np.random.Generator) -> Question | None:
    number = int(rng.random() * len(_SQA3D))
    for _ in range(_TRIES):
        here = _stand(room, rng)
        found = here and _SQA3D[number](room, rng, here)
        if here and found:
            words, answer, about = found
            prompt = f"{here.words} {words}{_SHORT}"
            about = (*about, here.at, here.facing)
            return Question("sqa3d", prompt, _sentence(answer), 0, 0, (answer,), number, about)
    return None


def _what(room: Room, rng: np.random.Generator, here: _View) -> _Answered:
    """The nearest thing on a side, if no other class, and nothing of unclear side, is about as near."""
    side = int(rng.random() * 4)
    inside = np.where(here.side == side, here.away, np.inf)
    thing = int(inside.argmin())
    rivals = ((here.side == side) & (room.kinds != room.kinds[thing])) | (here.side == -1)
    second = here.away[rivals].min(initial=np.inf)
    if thing == here.facing or inside[thing] == np.inf or (second < np.inf and not clear(inside[thing], second)):
        return None
    return f"What is {_SIDES[side]}?", KINDS[room.kinds[thing]].name, (thing,)


def _target(room: Room, rng: np.random.Generator, here: _View) -> tuple[int, str] | None:
    """A thing on a clear side, each side as often, with a name of its own."""
    things = np.flatnonzero(here.side == int(rng.random() * 4))
    thing = int(_pick(rng, things)) if len(things) else here.facing
    words = _own_name(room, rng, thing)
    return (thing, words) if words and thing != here.facing else None


def _is(room: Room, rng: np.random.Generator, here: _View) -> _Answered:
    target = _target(room, rng, here)
    if not target:
        return None
    thing, words = target
    side = int(here.side[thing])
    if side % 2 and rng.random() < 0.5:
        return f"Is the {words} on my left or right?", _DIRECTIONS[side], (thing,)
    asked = side if rng.random() < 0.5 else (side + int(rng.integers(1, 4))) % 4
    return f"Is the {words} {_SIDES[asked]}?", "yes" if asked == side else "no", (thing,)


def _how_many(room: Room, rng: np.random.Generator, here: _View) -> _Answered:
    kind, side = int(_pick(rng, room.kinds)), int(rng.random() * 4)
    members = room.kinds == kind
    sides = here.side[members]
    count = int((sides == side).sum())
    if (sides < 0).any() or count > 4 or (count == 0 and rng.random() < 0.6):
        return None
    found = np.flatnonzero(members & (here.side == side))
    return f"How many {KINDS[kind].plural} are {_SIDES[side]}?", _NUMBERS[count], tuple(map(int, found))


def _can(room: Room, rng: np.random.Generator, here: _View) -> _Answered:
    wanted = int(rng.random() < 0.62)  # few things are near, so that yes has to be drawn again more often
    things = np.flatnonzero((room.near[here.at] == wanted) & (here.side != -2))
    for thing in rng.permutation(things).tolist():  # until one has a name
        words = _own_name(room, rng, thing)
        if words:
            return f"Can I reach the {words} from here?", "yes" if wanted else "no", (thing,)
    return None


def _which(room: Room, rng: np.random.Generator, here: _View) -> _Answered:
    target = _target(room, rng, here)
    if not target:
        return None
    thing, words = target
    return f"Which direction should I go to reach the {words}?", _DIRECTIONS[here.side[thing]], (thing,)


def _other(room: Room, rng: np.random.Generator, here: _View) -> _Answered:
    first, second = _anchor(room, rng), _anchor(room, rng)
    if not first or not second or here.at in (first[0], second[0]) or room.kinds[first[0]] == room.kinds[second[0]]:
        return None
    near, far = sorted((first[0], second[0]), key=lambda thing: float(room.distances[here.at, thing]))
    if not clear(room.distances[here.at, near], room.distances[here.at, far]):
        return None
    return f"Am I closer to the {first[1]} or the {second[1]}?", KINDS[room.kinds[near]].name, (near, far)


_SQA3D = (_what, _is, _how_many, _can, _which, _other)  # in the order of the question types

_TASKS = {
    "scanrefer": _scanrefer,
    "multi3dref": _multi3dref,
    "scan2cap": _scan2cap,
    "scanqa": _scanqa,
    "sqa3d": _sqa3d,
}


def _words(texts: Iterable[str]) -> set[str]:
    return {word.strip('.,?"') for text in texts for word in text.split()} - {"", "{}"}


WORDS = tuple(
    sorted(
        _words([*_SCANREFER, *_MULTI3DREF, *_SCAN2CAP, _SHORT, *SIZES, *COLOURS, *MATERIALS, *_NUMBERS, *_SIDES])
        | _words(text for kind in KINDS for text in (kind.name, kind.plural))
        | _words(_DIRECTIONS)
        | _words(how for how, _ in _SUPERLATIVES)
        | _words(
            (
                "a an the on under near yes no Yes No closest to farthest from",
                "This is There It next What color material How many are in room Is there Which direction should I go",
                "Can I reach from here I am standing next to and facing on my left or right Am I closer",
            )
        )
    )
)
"""Every word of prompts and answers, sentence-initial answer words apart, which are these capitalised."""
