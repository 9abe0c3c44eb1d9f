import numpy as np
import pytest

from fast3d_core.demo.detection import detect
from fast3d_core.demo.rooms import COLOURS, KINDS, MATERIALS, SIZES, draw_size, make_room
from tests.demo.oracle import is_on, is_under, things_of

HUNG = [index for index, kind in enumerate(KINDS) if kind.place == "hung"]


def test_kinds():
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names) == 40
    assert not [(a, b) for a in names for b in names if a != b and a in b]  # refined exact match takes parts for wholes
    assert len(COLOURS) == 12 and len(MATERIALS) == 6 and len(SIZES) == 3


@pytest.mark.parametrize("things", [1, 5, 20, 100])
def test_same_seed_same_room(things):
    first, second, other = (make_room(np.random.default_rng(seed), things) for seed in (3, 3, 4))
    assert len(first) == things
    for name in ("kinds", "colours", "materials", "sizes", "boxes"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert not np.array_equal(first.boxes, other.boxes)


def test_draw_size():
    rng = np.random.default_rng(0)
    full = [draw_size(rng) for _ in range(2000)]
    assert min(full) == 20 and max(full) == 100
    train = np.array([draw_size(rng, full=False) for _ in range(4000)])
    assert train.min() == 5 and train.max() == 100
    assert abs((train < 16).mean() - 1 / 3) < 0.03 and abs(((train > 15) & (train < 41)).mean() - 0.36) < 0.03


def test_nothing_interpenetrates(places):
    for room, _ in places:
        low, high = room.boxes[:, :3] - room.boxes[:, 3:] / 2, room.boxes[:, :3] + room.boxes[:, 3:] / 2
        depth = (np.minimum(high[:, None], high) - np.maximum(low[:, None], low)).min(-1)
        np.fill_diagonal(depth, 0)
        assert depth.max() < 1e-9
        assert (room.boxes[:, 3:] > 0.02).all() and np.abs(room.boxes[:, :2]).max() < 9 and high[:, 2].max() < 5
        assert np.abs(low[:, :2].min(0) + high[:, :2].max(0)).max() < 3  # about centred


def test_everything_stands_on_something_or_hangs(places):
    for room, _ in places:
        bottoms = room.boxes[:, 2] - room.boxes[:, 5] / 2
        floor = np.abs(bottoms) < 1e-9
        stands = room.on.any(1)
        assert (floor ^ stands | (np.isin(room.kinds, HUNG) & (bottoms > 1))).all()
        for thing, place in np.argwhere(room.on):
            assert abs(bottoms[thing] - room.boxes[place, 2] - room.boxes[place, 5] / 2) < 1e-9


def test_relations(places):
    """`Room`'s relations are those of the oracle, and every one occurs."""
    counts = np.zeros(3)
    for room, _ in places[:20]:
        things = things_of(room)
        for i, a in enumerate(things):
            for j, b in enumerate(things):
                assert is_on(a, b) == (room.on[i, j] == 1)
                assert room.under[i, j] == -1 or is_under(a, b, 0.5) == (room.under[i, j] == 1)
        counts += (room.on.sum(), (room.under == 1).sum(), (room.near == 1).sum())
    assert (counts > 20).all()


def test_looks_like_a_home(places):
    rooms = [room for room, _ in places if len(room) >= 20]
    repeated = [(np.bincount(room.kinds)[room.kinds] > 1).mean() for room in rooms]
    assert 0.6 < np.mean(repeated) < 0.97
    assert all(10 <= len(np.unique(room.kinds)) <= 36 for room in rooms if len(room) > 50)
    seen = np.bincount(np.concatenate([room.kinds for room in rooms]), minlength=len(KINDS))
    assert (seen > 0).all() and seen.max() < 0.2 * seen.sum()
    for room in rooms:
        assert all(colour in KINDS[kind].colours for kind, colour in zip(room.kinds, room.colours, strict=True))
        assert all(made in KINDS[kind].materials for kind, made in zip(room.kinds, room.materials, strict=True))


def test_detection():
    rng = np.random.default_rng(1)
    rooms = [make_room(rng, draw_size(rng)) for _ in range(80)]
    found = [detect(room, rng) for room in rooms]
    ious = np.concatenate([detection.ious for detection in found])
    assert 0.935 < (ious >= 0.5).mean() < 0.965 and (ious >= 0.25).mean() > 0.99
    same = [np.arange(len(room)) == d.slots for room, d in zip(rooms, found, strict=True)]
    assert np.concatenate(same).mean() < 0.1  # shuffled
    made_from = [d.objects[d.slots] == np.arange(len(d.slots)) for d in found]
    assert np.concatenate(made_from).mean() > 0.998  # the best box is nearly always the thing's own
    again = detect(rooms[0], np.random.default_rng(5))
    assert np.array_equal(again.boxes, detect(rooms[0], np.random.default_rng(5)).boxes)
