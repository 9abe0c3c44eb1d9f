"""Names of things: a class and any of size, colour and material; and the things that have a name of their own."""

from dataclasses import dataclass

import numpy as np

from fast3d_core.demo.questions.draws import TRIES, pick
from fast3d_core.demo.rooms import COLOURS, KINDS, MATERIALS, SIZES, Room

MATERIAL, COLOUR, SIZE = 4, 2, 1  # bits of a name: which attributes it says besides the class
NAMES = (0, COLOUR, SIZE, MATERIAL, COLOUR | SIZE, COLOUR | MATERIAL, SIZE | MATERIAL, 7)
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Name:
    """A class with some attributes, -1 where it says nothing."""

    kind: int
    size: int = -1
    colour: int = -1
    material: int = -1

    def words(self, plural: bool = False) -> str:
        """The name without an article, such as "small red chairs"."""
        attributes = [
            words[index]
            for words, index in ((SIZES, self.size), (COLOURS, self.colour), (MATERIALS, self.material))
            if index >= 0
        ]
        return " ".join([*attributes, KINDS[self.kind].plural if plural else KINDS[self.kind].name])

    def fits(self, room: Room) -> np.ndarray:
        """(n,) bool: which things of the room the name fits."""
        fits = room.kinds == self.kind
        attributes = ((room.sizes, self.size), (room.colours, self.colour), (room.materials, self.material))
        for values, index in attributes:
            if index >= 0:
                fits = fits & (values == index)
        return fits


def name_of(room: Room, thing: int, bits: int) -> Name:
    """The name of a thing that says the attributes `bits`."""
    return Name(
        int(room.kinds[thing]),
        int(room.sizes[thing]) if bits & SIZE else -1,
        int(room.colours[thing]) if bits & COLOUR else -1,
        int(room.materials[thing]) if bits & MATERIAL else -1,
    )


def article(words: str) -> str:
    """The words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def some_name(room: Room, rng: np.random.Generator, thing: int) -> Name:
    """A random name of a thing, fitting others or not; rather a short one."""
    return name_of(room, thing, NAMES[int(rng.random() ** 2 * len(NAMES))])


def invented(rng: np.random.Generator, kind: int, bits: int) -> Name:
    """A name with random but plausible attributes."""
    return Name(
        kind,
        int(rng.random() * len(SIZES)) if bits & SIZE else -1,
        pick(rng, KINDS[kind].colours) if bits & COLOUR else -1,
        pick(rng, KINDS[kind].materials) if bits & MATERIAL else -1,
    )


def own_name(room: Room, rng: np.random.Generator, thing: int, silent: int = 0) -> str | None:
    """A name that fits this thing alone and does not say the attributes `silent`: the shortest, or any."""
    alike = _alike(room, thing)
    own = [bits for bits in NAMES if not bits & silent and alike[bits] == 1]
    if not own:
        return None
    return name_of(room, thing, own[0] if rng.random() < 0.7 else pick(rng, own)).words()


def _alike(room: Room, thing: int) -> np.ndarray:
    """(8,) how many things share the class and the attributes `bits` with this one."""
    key = (
        (room.sizes == room.sizes[thing]) * SIZE
        + (room.colours == room.colours[thing]) * COLOUR
        + (room.materials == room.materials[thing]) * MATERIAL
    )[room.kinds == room.kinds[thing]]
    return _INCLUDES @ np.bincount(key, minlength=8)


_INCLUDES = np.array([[bits & has == bits for has in range(8)] for bits in range(8)]).astype(int)


def draw_anchor(room: Room, rng: np.random.Generator) -> tuple[int, str] | None:
    """A random thing that has a name of its own, and that name."""
    for _ in range(TRIES):
        thing = int(rng.random() * len(room))
        words = own_name(room, rng, thing)
        if words:
            return thing, words
    return None


def full_name(room: Room, thing: int) -> str:
    """The name of a thing that says all its attributes."""
    return name_of(room, thing, 7).words()


def clear(first: float, second: float) -> bool:
    """Whether the second of two distances is clearly greater: by 20 cm and by 15%."""
    return second - first >= max(0.2, 0.15 * second)


def nearest(room: Room, thing: int, bits: int) -> int | None:
    """The nearest other thing, if everything that the name `bits` of it does not fit is clearly farther."""
    distances = room.distances[thing].copy()
    distances[thing] = np.inf
    nearest = int(distances.argmin())
    other = ~name_of(room, nearest, bits).fits(room)
    second = distances[other].min(initial=np.inf)
    alone = np.isinf(distances[nearest])
    return None if alone or not (np.isinf(second) or clear(distances[nearest], second)) else nearest
