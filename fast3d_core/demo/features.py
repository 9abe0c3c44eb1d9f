"""Object features as two encoders would see them: fixed random mixtures of the exact attributes, and noise.

The 3D features know shape, size and place and hardly any colour; the 2D features know colour and material and only
roughly the place. Both take groups of four classes for nearly one, but no two classes share a group in both.
"""

import numpy as np

from fast3d_core.demo.rooms import COLOURS, KINDS, MATERIALS, SIZES, Room

WIDTH = 64
NOISE_3D = NOISE_2D = 0.01
"""Standard deviation of the Gaussian noise on each of the 64 features."""

_REACH = 8.0  # m, about the half of the largest room
_WAVES = (32.0, 8.0, 4.0, 2.0)  # m; the first is monotonous across any room, the last shows what is near
_MIDDLE = np.array([0.0, 0.0, 1.0])  # m, around which positions are measured
_GROUP = 4  # classes that one encoder hardly distinguishes

# In codes: class, colour, material, size (one-hot), log extents, place, sines and cosines of it.
_BLOCKS = (len(KINDS), len(COLOURS), len(MATERIALS), len(SIZES), 3, 3, 6 * len(_WAVES))
CODE_WIDTH = sum(_BLOCKS)


def object_codes(room: Room) -> np.ndarray:
    """(n, CODE_WIDTH) float32, the exact attributes of all things; extents as log metres, positions over 8 m."""
    positions = room.boxes[:, :3] - _MIDDLE
    phases = [2 * np.pi * positions / wave for wave in _WAVES]
    one_hot = [
        np.eye(count)[values]
        for count, values in zip(_BLOCKS, (room.kinds, room.colours, room.materials, room.sizes), strict=False)
    ]
    waves = [wave(phase) for phase in phases for wave in (np.sin, np.cos)]
    return np.concatenate([*one_hot, np.log(room.boxes[:, 3:]), positions / _REACH, *waves], axis=1).astype(np.float32)


def features(codes: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The 3D and the 2D features of things, (n, 64) float32 each, from their codes.

    The noise apart, they are `codes @ MIX_3D` and `codes @ MIX_2D`.
    """
    noise = rng.standard_normal((2, len(codes), WIDTH), dtype=np.float32)
    return codes @ MIX_3D + NOISE_3D * noise[0], codes @ MIX_2D + NOISE_2D * noise[1]


def _classes(groups: np.ndarray, members: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """(classes, 64): a long vector of the group plus a short one of the member."""
    return 0.5 * axes[groups] + 0.016 * axes[groups.max() + 1 + members]


def _mixture(seed: int, classes: tuple[np.ndarray, np.ndarray], weights: tuple[float, ...]) -> np.ndarray:
    """(CODE_WIDTH, 64): every code along an axis of a random rotation, as long as its weight; 0 takes no axis."""
    axes = np.linalg.qr(np.random.default_rng(seed).standard_normal((WIDTH, WIDTH)))[0]
    used = int(classes[0].max() + classes[1].max()) + 2
    rows = [_classes(*classes, axes)]
    for width, weight in zip(_BLOCKS[1:], weights, strict=True):
        count = width if weight else 0
        rows.append(np.concatenate([weight * axes[used : used + count], np.zeros((width - count, WIDTH))]))
        used += count
    return np.concatenate(rows).astype(np.float32)


_CLASS = np.arange(len(KINDS))
_GROUPS = len(KINDS) // _GROUP

#                            colour, material, size, extent, place, waves
MIX_3D = _mixture(3, (_CLASS // _GROUP, _CLASS % _GROUP), (0.004, 0.0, 0.2, 0.15, 1.0, 0.6))
"""(CODE_WIDTH, 64) float32; neighbours in `KINDS` share a group."""

MIX_2D = _mixture(2, (_CLASS % _GROUPS, _CLASS // _GROUPS), (0.3, 0.3, 0.004, 0.0, 0.2, 0.0))
"""(CODE_WIDTH, 64) float32; every tenth of `KINDS` shares a group."""
