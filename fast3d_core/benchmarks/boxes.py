"""Overlap of axis-aligned boxes, as the published scorers compute it."""

import numpy as np

EPSILON = 1e-8  # m^3, in the published denominator


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 6), centre xyz and size in metres; the shapes broadcast.

    A box lies between the least and the greatest of its corners, so a negative size counts as its absolute value.

    The published 1e-8 in the denominator is kept: an exact half becomes 0.4999999975 in float64, which fails ">= 0.5"
    (ScanRefer, Scan2Cap), and 0.5 again when it is rounded to float32, which passes (Multi3DRefer).
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    half_1, half_2 = np.abs(first[..., 3:]) / 2, np.abs(second[..., 3:]) / 2
    low_1, high_1 = first[..., :3] - half_1, first[..., :3] + half_1
    low_2, high_2 = second[..., :3] - half_2, second[..., :3] + half_2
    shared = np.clip(np.minimum(high_1, high_2) - np.maximum(low_1, low_2), 0, None).prod(-1)
    return shared / ((high_1 - low_1).prod(-1) + (high_2 - low_2).prod(-1) - shared + EPSILON)
