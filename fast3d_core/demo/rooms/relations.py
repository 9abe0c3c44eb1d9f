"""A room: its things, and how they stand to each other."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_ON_GAP = 0.02  # m between a thing and what it stands on, at most
_NEAR, _NEAR_MARGIN = 1.5, 0.25  # m between centres


@dataclass(frozen=True)
class Room:
    """The n things of a room.

    Attributes:
        kinds: (n,) class, into `KINDS`; colours, materials, sizes: (n,) into `COLOURS`, `MATERIALS`, `SIZES`.
        boxes: (n, 6) float64 centre and size in metres, z up from the floor, x and y centred on the room.
    """

    scene_id: str
    kinds: np.ndarray
    colours: np.ndarray
    materials: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    @cached_property
    def distances(self) -> np.ndarray:
        """(n, n) metres between centres."""
        centres = self.boxes[:, :3]
        return np.sqrt(np.square(centres[:, None] - centres).sum(-1))

    @cached_property
    def near(self) -> np.ndarray:
        """(n, n) int: 1 within 1.5 m, 0 beyond, -1 too close to call; 0 for a thing and itself."""
        near = (self.distances < _NEAR).astype(np.int8)
        near[np.abs(self.distances - _NEAR) < _NEAR_MARGIN] = -1
        np.fill_diagonal(near, 0)
        return near

    @cached_property
    def _covered(self) -> np.ndarray:
        """(n, n) share of thing j's footprint that is over or under thing i's."""
        low = self.boxes[:, :2] - self.boxes[:, 3:5] / 2
        high = self.boxes[:, :2] + self.boxes[:, 3:5] / 2
        shared = np.clip(np.minimum(high[:, None], high) - np.maximum(low[:, None], low), 0, None).prod(-1)
        return shared / self.boxes[:, 3:5].prod(-1)

    @cached_property
    def _gap(self) -> np.ndarray:
        """(n, n) metres from the top of thing i up to the bottom of thing j."""
        half = self.boxes[:, 5] / 2
        return (self.boxes[:, 2] - half) - (self.boxes[:, 2] + half)[:, None]

    @cached_property
    def on(self) -> np.ndarray:
        """(n, n) int: 1 where thing i stands on thing j."""
        return ((np.abs(self._gap) <= _ON_GAP) & (self._covered > 0.5)).T.astype(np.int8)

    @cached_property
    def under(self) -> np.ndarray:
        """(n, n) int: 1 where thing i is below thing j, which hangs above most of it, -1 where it is hard to say."""
        hangs = self._gap > 0.05
        under = (hangs & (self._covered > 0.7)).astype(np.int8)
        under[hangs & (self._covered > 0.2) & (self._covered <= 0.7)] = -1
        return under
