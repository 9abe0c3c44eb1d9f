"""Rooms laid out at random without interpenetration.

A room is built of units, a piece of furniture with what stands beside and on it. Units against a wall are packed along
the walls, the others in rows inside, and the room is made as large as they need: nothing is ever tried and rejected.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fast3d_core.demo.rooms.catalogue import AT, BESIDE, COLOURS, KINDS, MATERIALS, NEXT_TO, ON, TWO_SIDED
from fast3d_core.demo.rooms.relations import Room

_SCALES = (0.74, 1.0, 1.32)  # of small, medium, large
_SPREAD = 0.06  # of each side, within a size
_AISLE = 0.35  # m between what stands at the walls and inside
_FROM_WALL = 0.09  # m that things on furniture keep from its back, so that nothing hung on the wall meets them
_OVER = 0.12  # m between furniture and what hangs above
_HANGS_AT = 1.15  # m, the lowest


def draw_size(rng: np.random.Generator, full: bool = True) -> int:
    """How many things a room has: 20 to 100; if not `full` (training), 5-15 in a third and 15-40 in a quarter."""
    low, high = 20, 100
    if not full:
        draw = rng.random()
        low, high = (5, 15) if draw < 1 / 3 else (15, 40) if draw < 7 / 12 else (20, 100)
    return int(rng.integers(low, high + 1))


_Thing = tuple[int, int, float, float, float, float, float, float]  # kind, size, centre x y z, width, depth, height


@dataclass
class _Unit:
    """Furniture with what stands beside and on it, in a frame with x along the wall and y away from it, from 0, 0."""

    things: list[_Thing]
    width: float
    depth: float


def make_room(rng: np.random.Generator, things: int, scene_id: str = "scene0000_00") -> Room:
    """A room of exactly `things` things, at least 1."""
    weights = rng.exponential(size=len(KINDS))  # a room has much of a few kinds, and none of many
    weights[rng.random(len(KINDS)) < 0.25] = 0
    hung = [_thing(rng, kind) for kind in _choose(rng, AT["hung"], weights, int(things * rng.uniform(0.06, 0.18)))]
    units: dict[bool, list[_Unit]] = {True: [], False: []}  # against a wall?
    count = len(hung)
    while count < things:
        wall = rng.random() < 0.5
        base = _choose(rng, AT["wall" if wall else "floor"], weights, 1)[0]
        unit = _unit(rng, base, things - count, weights)
        units[wall].append(unit)
        count += len(unit.things)
    return _dress(rng, scene_id, _lay_out(rng, units[True], units[False], hung))


def _choose(rng: np.random.Generator, among: Sequence[int], weights: np.ndarray, count: int) -> list[int]:
    chances = np.cumsum(weights[list(among)] + 1e-6)
    return [among[i] for i in np.searchsorted(chances, rng.random(count) * chances[-1])]


def _thing(rng: np.random.Generator, kind: int) -> _Thing:
    """A thing of random size at the origin."""
    size = int(rng.random() * 3)
    scale = _SCALES[size]
    width, depth, height = (
        side * scale * (1 + _SPREAD * (2 * draw - 1))
        for side, draw in zip(KINDS[kind].extent, rng.random(3).tolist(), strict=True)
    )
    return kind, size, 0.0, 0.0, height / 2, width, depth, height


def _at(thing: _Thing, x: float, y: float, bottom: float = 0.0) -> _Thing:
    return (*thing[:2], x, y, bottom + thing[7] / 2, *thing[5:])


def _spread(rng: np.random.Generator, lengths: list[float], room: float) -> list[float]:
    """The centres of things of these lengths in a row from 0 to `room`, with random gaps."""
    slack = room - sum(lengths)
    centres, start = [], 0.0
    for length, gap in zip(lengths, sorted(rng.random(len(lengths)).tolist()), strict=True):
        centres.append(start + length / 2 + gap * slack)
        start += length
    return centres


def _fit(things: list[_Thing], width: float, depth: float) -> list[_Thing]:
    """Those that fit side by side into a strip, the first ones first."""
    kept, total = [], 0.0
    for thing in things:
        if total + thing[5] <= width and thing[6] <= depth:
            kept.append(thing)
            total += thing[5]
    return kept


def _unit(rng: np.random.Generator, base: int, budget: int, weights: np.ndarray) -> _Unit:
    """A piece of furniture with at most `budget` things, itself included."""
    core = _thing(rng, base)
    width, depth, top = core[5:]
    unit = _Unit([_at(core, width / 2, depth / 2)], width, depth)
    if base in BESIDE and rng.random() < 0.8:
        if base == NEXT_TO:
            _stand_next_to(rng, unit, BESIDE[base][0], budget - 1)
        else:
            _stand_in_front(rng, unit, BESIDE[base][0], budget - 1, base == TWO_SIDED)
    if base in ON:
        _, _, x, y, *_ = unit.things[0]
        count = min(int(rng.exponential(2.2)), budget - len(unit.things))
        found = [_thing(rng, kind) for kind in _choose(rng, ON[base], weights, count)]
        row = _fit(found, width, depth - _FROM_WALL)
        for thing, centre in zip(row, _spread(rng, [thing[5] for thing in row], width), strict=True):
            back = rng.uniform(_FROM_WALL, depth - thing[6])
            unit.things.append(_at(thing, x - width / 2 + centre, y - depth / 2 + back + thing[6] / 2, top))
    return unit


def _stand_next_to(rng: np.random.Generator, unit: _Unit, kind: int, budget: int) -> None:
    """One thing on one or either side, its back to the same wall."""
    for count in range(min(budget, 1 + int(rng.random() * 2))):
        thing, gap = _thing(rng, kind), rng.uniform(0.03, 0.15)
        if count:
            unit.things = [_at(t, t[2] + thing[5] + gap, t[3], t[4] - t[7] / 2) for t in unit.things]
        unit.things.append(_at(thing, thing[5] / 2 if count else unit.width + gap + thing[5] / 2, thing[6] / 2))
        unit.width += thing[5] + gap


def _stand_in_front(rng: np.random.Generator, unit: _Unit, kind: int, budget: int, two_sided: bool) -> None:
    """A row of up to three in front, and of a table another one behind."""
    for behind in (False, True) if two_sided else (False,):
        wanted = min(1 + int(rng.random() * 3), budget + 1 - len(unit.things))
        row = _fit([_thing(rng, kind) for _ in range(wanted)], unit.width, 9.0)
        if not row:
            continue
        gap, deepest = rng.uniform(0.03, 0.2), max(thing[6] for thing in row)
        if behind:
            unit.things = [_at(t, t[2], t[3] + deepest + gap, t[4] - t[7] / 2) for t in unit.things]
        for thing, x in zip(row, _spread(rng, [thing[5] for thing in row], unit.width), strict=True):
            y = deepest - thing[6] / 2 if behind else unit.depth + gap + thing[6] / 2
            unit.things.append(_at(thing, x, y))
        unit.depth += gap + deepest


def _turned(unit: _Unit, turn: int, x: float, y: float) -> list[_Thing]:
    """The things of a unit with its lower corner at x, y; its back is to the south, west, north or east (turn 0-3)."""
    placed = []
    for kind, size, lx, ly, z, w, d, h in unit.things:
        if turn == 0:
            placed.append((kind, size, x + lx, y + ly, z, w, d, h))
        elif turn == 1:
            placed.append((kind, size, x + ly, y + unit.width - lx, z, d, w, h))
        elif turn == 2:
            placed.append((kind, size, x + unit.width - lx, y + unit.depth - ly, z, w, d, h))
        else:
            placed.append((kind, size, x + unit.depth - ly, y + lx, z, d, w, h))
    return placed


def _in_rows(rng: np.random.Generator, units: list[_Unit]) -> tuple[list[_Thing], float, float]:
    """Units in rows from 0, 0, each turned at random; with the width and depth that they take."""
    turns = (rng.random(len(units)) * 4).astype(int).tolist()
    gaps = rng.uniform(0.1, 0.5, (len(units), 2)).tolist()
    sizes = [
        (unit.depth + gap[0], unit.width + gap[1]) if turn % 2 else (unit.width + gap[0], unit.depth + gap[1])
        for unit, turn, gap in zip(units, turns, gaps, strict=True)
    ]
    area = sum(width * depth for width, depth in sizes)
    width = max([rng.uniform(1.0, 1.4) * area**0.5, *(size[0] for size in sizes)])
    rows: list[list[int]] = [[]]
    for index in range(len(units)):
        if sum(sizes[i][0] for i in rows[-1]) + sizes[index][0] > width:
            rows.append([])
        rows[-1].append(index)
    placed, y = [], 0.0
    for row in rows:
        deepest = max((sizes[i][1] for i in row), default=0.0)
        for i, x in zip(row, _spread(rng, [sizes[i][0] for i in row], width), strict=True):
            lift = rng.random() * (deepest - sizes[i][1])
            placed += _turned(units[i], turns[i], x - sizes[i][0] / 2, y + lift)
        y += deepest
    return placed, width, y


def _lay_out(rng: np.random.Generator, walls: list[_Unit], inner: list[_Unit], hung: list[_Thing]) -> list[_Thing]:
    """All things of the room, x and y centred on it."""
    placed, width, depth = _in_rows(rng, inner)
    standing = _deal(rng, walls)
    hanging = _deal(rng, [_Unit([_at(thing, thing[5] / 2, thing[6] / 2)], thing[5], thing[6]) for thing in hung])
    south, west, north, east = (max((unit.depth for unit in side), default=0.0) + _AISLE for side in standing)
    needed = [
        max(sum(unit.width + 0.1 for unit in side) for side in pair) for pair in zip(standing, hanging, strict=True)
    ]
    width = max(width, needed[0] - west - east, needed[2] - west - east)
    depth = max(depth, needed[1], needed[3])
    placed = _moved(placed, west, south)
    across, along = width + west + east, depth + south + north
    for turn in range(4):
        start, length = ((0.0, across), (south, depth))[turn % 2]
        furniture: list[_Thing] = []
        for units, over in ((standing[turn], False), (hanging[turn], True)):
            centres = _spread(rng, [unit.width for unit in units], length)
            for unit, centre in zip(units, centres, strict=True):
                x = y = start + centre - unit.width / 2
                if turn % 2:
                    x = 0.0 if turn == 1 else across - unit.depth
                else:
                    y = 0.0 if turn == 0 else along - unit.depth
                things = _turned(unit, turn, x, y)
                if over:
                    things = [_hang(rng, things[0], furniture, turn % 2)]
                else:
                    furniture += things
                placed += things
    return _moved(placed, -across / 2, -along / 2)


def _deal(rng: np.random.Generator, units: list[_Unit]) -> list[list[_Unit]]:
    """Units for the four walls, each to the emptiest, the first at random."""
    sides: list[list[_Unit]] = [[], [], [], []]
    filled = (rng.random(4) * 0.1).tolist()
    for unit in units:
        side = filled.index(min(filled))
        sides[side].append(unit)
        filled[side] += unit.width
    return sides


def _moved(things: list[_Thing], x: float, y: float) -> list[_Thing]:
    return [(t[0], t[1], t[2] + x, t[3] + y, *t[4:]) for t in things]


def _hang(rng: np.random.Generator, thing: _Thing, furniture: list[_Thing], axis: int) -> _Thing:
    """`thing` at a height above all furniture of its wall (which runs along `axis`) that it is next to."""
    bottom = _HANGS_AT + rng.random() * 0.4
    for other in furniture:
        if abs(other[2 + axis] - thing[2 + axis]) < (other[5 + axis] + thing[5 + axis]) / 2:
            bottom = max(bottom, other[4] + other[7] / 2 + _OVER)
    return _at(thing, thing[2], thing[3], bottom)


_COLOURS_OF = np.array([np.resize(kind.colours, len(COLOURS)) for kind in KINDS])
_MATERIALS_OF = np.array([np.resize(kind.materials, len(MATERIALS)) for kind in KINDS])
_CHOICES = np.array([(len(kind.colours), len(kind.materials)) for kind in KINDS])
_MATCHING = 0.4  # of the things of a kind share the room's colour and material for it


def _dress(rng: np.random.Generator, scene_id: str, things: list[_Thing]) -> Room:
    """Gives things their colours and materials, and shuffles them."""
    table = np.array(things)[rng.permutation(len(things))]
    kinds = table[:, 0].astype(int)
    own = rng.random((len(things), 2))
    house = rng.random((len(KINDS), 2))[kinds]
    chosen = np.where(rng.random((len(things), 1)) < _MATCHING, house, own) * _CHOICES[kinds]
    colour, material = chosen.astype(int).T
    return Room(
        scene_id,
        kinds,
        _COLOURS_OF[kinds, colour],
        _MATERIALS_OF[kinds, material],
        table[:, 1].astype(int),
        table[:, 2:],
    )
