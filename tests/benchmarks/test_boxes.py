import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fast3d_core.benchmarks.boxes import EPSILON, iou

CENTRES = st.tuples(*[st.floats(-10, 10)] * 3)
SIZES = st.tuples(*[st.floats(0.05, 5)] * 3)
BOXES = st.builds(lambda centre, size: np.array([*centre, *size]), CENTRES, SIZES)


@given(BOXES, BOXES)
def test_symmetric_and_between_0_and_1(first, second):
    overlap = iou(first, second)
    assert 0 <= overlap <= 1
    assert overlap == iou(second, first)


@given(BOXES)
def test_a_box_overlaps_itself_wholly_but_for_the_epsilon(box):
    volume = box[3:].prod()
    assert iou(box, box) == pytest.approx(volume / (volume + EPSILON), rel=1e-9)


@given(BOXES, BOXES, st.tuples(*[st.floats(-100, 100)] * 3))
def test_translation_changes_nothing(first, second, shift):
    moved = np.array([*shift, 0, 0, 0])
    assert iou(first + moved, second + moved) == pytest.approx(iou(first, second), abs=1e-9)


@given(BOXES, CENTRES)
def test_agrees_with_counting_grid_cells(box, direction):
    """A box shifted by whole tenths of its size along each axis overlaps in a countable number of cells."""
    tenths = np.round(np.clip(direction, -10, 10))
    moved = box.copy()
    moved[:3] += tenths / 10 * box[3:]
    shared = np.prod(10 - np.abs(tenths))  # of 1000 cells
    assert iou(box, moved) == pytest.approx(shared / (2000 - shared), abs=1e-4)


def test_shapes_broadcast():
    boxes = np.random.default_rng(0).uniform(0.1, 2, (5, 6))
    table = iou(boxes[:, None], boxes)
    assert table.shape == (5, 5)
    assert table[1, 3] == iou(boxes[1], boxes[3])


def test_an_exact_half_fails_in_float64_and_passes_in_float32():
    half = iou(np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 2]))
    assert half < 0.5
    assert half.astype(np.float32) == np.float32(0.5)


def test_boxes_without_volume_do_not_divide_by_zero():
    assert iou(np.zeros(6), np.zeros(6)) == 0


@given(BOXES, BOXES, st.tuples(*[st.sampled_from((-1, 1))] * 3))
def test_a_negative_size_is_a_box_between_the_same_corners(first, second, signs):
    """As published: a box lies between the least and the greatest of its eight corners."""
    turned = first * np.array([1, 1, 1, *signs])
    corners = np.stack([turned[:3] - turned[3:] / 2, turned[:3] + turned[3:] / 2])
    low, high = corners.min(0), corners.max(0)
    other_low, other_high = second[:3] - second[3:] / 2, second[:3] + second[3:] / 2
    shared = np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0).prod()
    expected = shared / ((high - low).prod() + (other_high - other_low).prod() - shared + EPSILON)
    assert iou(turned, second) == pytest.approx(expected, rel=1e-12)
    assert iou(second, turned) == pytest.approx(expected, rel=1e-12)
