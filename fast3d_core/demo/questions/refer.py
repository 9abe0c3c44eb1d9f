"""Descriptions of one thing, by its attributes or by what is near, under or smaller."""

import numpy as np

from fast3d_core.demo.questions.draws import TRIES, pick
from fast3d_core.demo.questions.names import (
    COLOUR,
    MATERIAL,
    NAMES,
    SIZE,
    clear,
    draw_anchor,
    name_of,
    own_name,
)
from fast3d_core.demo.rooms import Room

Found = tuple[int, str, tuple[int, ...]] | None
"""(thing, words, what the description rests on)."""


def _by_attributes(room: Room, rng: np.random.Generator, silent: int) -> Found:
    thing = int(rng.random() * len(room))
    words = own_name(room, rng, thing, silent)
    return (thing, f"the {words}", (thing,)) if words else None


def _by_distance(room: Room, rng: np.random.Generator, silent: int) -> Found:
    """ "the chair closest to the blue desk", "the lamp farthest from the bed"."""
    anchor = draw_anchor(room, rng)
    if not anchor:
        return None
    other, words = anchor
    name = name_of(room, int(rng.random() * len(room)), pick(rng, (0, 0, COLOUR, SIZE)) & ~silent)
    members = np.flatnonzero(name.fits(room))
    members = members[members != other]
    if len(members) < 2:
        return None
    distances = room.distances[other, members]
    order = distances.argsort()
    closest = rng.random() < 0.6
    first, second = (order[0], order[1]) if closest else (order[-2], order[-1])
    if not clear(distances[first], distances[second]):
        return None
    thing = int(members[order[0] if closest else order[-1]])
    how = "closest to" if closest else "farthest from"
    return thing, f"the {name.words()} {how} the {words}", (thing, other)


def _by_support(room: Room, rng: np.random.Generator, silent: int) -> Found:
    """ "the lamp on the desk", "the cabinet under the window"."""
    how, relation = ("on", room.on) if rng.random() < 0.6 else ("under", room.under)
    pairs = np.argwhere(relation == 1)
    if not len(pairs):
        return None
    thing, other = map(int, pick(rng, pairs))
    words = own_name(room, rng, other)
    if not words:
        return None
    for bits in NAMES:
        if not bits & silent:
            name = name_of(room, thing, bits)
            if (relation[name.fits(room), other] != 0).sum() == 1:
                return thing, f"the {name.words()} {how} the {words}", (thing, other)
    return None


SUPERLATIVES = (("tallest", 1.15), ("largest", 1.3), ("smallest", 1.3))  # and by what factor


def _by_superlative(room: Room, rng: np.random.Generator, silent: int) -> Found:
    """ "the tallest cabinet" (its height), "the largest box", "the smallest red chair" (their volume)."""
    name = name_of(room, int(rng.random() * len(room)), pick(rng, (0, 0, COLOUR, MATERIAL)) & ~silent)
    members = np.flatnonzero(name.fits(room))
    if len(members) < 2:
        return None
    how, factor = pick(rng, SUPERLATIVES)
    extents = room.boxes[members, 3:]
    values = extents[:, 2] if how == "tallest" else 1 / extents.prod(1) if how == "smallest" else extents.prod(1)
    second, first = values.argsort()[-2:]
    if values[first] < factor * values[second]:
        return None
    thing = int(members[first])
    return thing, f"the {how} {name.words()}", (thing,)


_WAYS = (_by_attributes, _by_attributes, _by_distance, _by_distance, _by_support, _by_superlative)


def refer(room: Room, rng: np.random.Generator, silent: int = 0) -> Found:
    """A description of one thing by any means, that does not say the attributes `silent`."""
    way = pick(rng, _WAYS)  # insisted on, so that those which often fail are not rare
    for attempt in range(TRIES):
        found = (way if attempt < TRIES // 2 else pick(rng, _WAYS))(room, rng, silent)
        if found:
            return found
    return None
