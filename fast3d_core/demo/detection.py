"""What an instance detector makes of a room: jittered boxes in an order of its own."""

from dataclasses import dataclass

import numpy as np

from fast3d_core.benchmarks.boxes import iou
from fast3d_core.demo.rooms import Room

_JITTER = (0.05, 0.17)  # of a box's size: standard deviation of its shift and of its log size, good and poor boxes
_POOR = 0.07


@dataclass(frozen=True)
class Detection:
    """The n detected instances of a room of n things. `<OBJxxx>` counts slots.

    Attributes:
        boxes: (n, 6) float64 centre and size in metres, by slot.
        objects: (n,) the thing that each slot was made from, whose features it has.
        slots: (n,) the slot that answers name for each thing: the one of highest IoU; ious: (n,) that IoU.
    """

    boxes: np.ndarray
    objects: np.ndarray
    slots: np.ndarray
    ious: np.ndarray


def detect(room: Room, rng: np.random.Generator) -> Detection:
    """Boxes with an IoU of at least 0.5 for about 95% of the things and 0.25 for about 99.5%, shuffled."""
    count = len(room)
    objects = rng.permutation(count)
    true = room.boxes[objects]
    spread = np.where(rng.random((count, 1)) < _POOR, _JITTER[1], _JITTER[0])
    noise = rng.standard_normal((count, 6)) * spread
    boxes = np.concatenate([true[:, :3] + noise[:, :3] * true[:, 3:], true[:, 3:] * np.exp(noise[:, 3:])], axis=1)
    return Detection(boxes, objects, *best_slots(boxes, room.boxes))


def best_slots(detected: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the detected box (m, 6) of highest IoU with each true box (n, 6), and (n,) that IoU."""
    overlap = iou(true[:, None], detected)
    return overlap.argmax(1), overlap.max(1)
