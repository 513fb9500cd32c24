"""Boundary IoU against cases counted by hand, and against the authors' recipe with OpenCV."""

from __future__ import annotations

import numpy as np
import pytest

from worker.convert.evaluate.boundary import boundary, boundary_iou


def box(top: int, left: int, bottom: int, right: int, shape: tuple[int, int] = (30, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def test_the_band_of_a_box_counted_by_hand():
    band = boundary(box(5, 5, 15, 25), 2)

    assert band.sum() == 10 * 20 - 6 * 16
    assert not band[7:13, 7:23].any()


def test_the_border_of_the_picture_is_an_outline():
    whole = np.ones((30, 40), bool)

    assert boundary(whole, 1).sum() == 30 * 40 - 28 * 38


def test_boxes_one_pixel_apart_counted_by_hand():
    """The diagonal of 30 x 40 is 50, so the band is 1 pixel wide.

    The band of a box of 10 x 20 has 2 * (10 + 20) - 4 = 56 pixels. After a move to the right by one, the bands share
    columns 6 to 24 of the upper and the lower side, and nothing of the left and right sides.
    """
    shared = 2 * 19
    union = 2 * 56 - shared

    assert boundary_iou(box(5, 5, 15, 25), box(5, 6, 15, 26)) == pytest.approx(shared / union)


def test_a_wrong_outline_of_a_large_subject_hardly_changes_iou_but_boundary_iou():
    one, other = box(10, 10, 290, 390, (300, 400)), box(18, 18, 282, 382, (300, 400))
    iou = (one & other).sum() / (one | other).sum()

    assert iou > 0.88
    assert boundary_iou(one, other) < 0.15


def test_equal_masks_and_empty_masks_agree():
    empty = np.zeros((30, 40), bool)

    assert boundary_iou(box(5, 5, 15, 25), box(5, 5, 15, 25)) == 1.0
    assert boundary_iou(empty, empty) == 1.0
    assert boundary_iou(empty, box(5, 5, 15, 25)) == 0.0


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        boundary_iou(np.ones((3, 4), bool), np.ones((4, 3), bool))


def test_as_the_authors_compute_it():
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(1)

    def published(mask: np.ndarray) -> np.ndarray:
        height, width = mask.shape
        dilation = max(1, round(0.02 * np.sqrt(height**2 + width**2)))
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation)
        return mask - eroded[1 : height + 1, 1 : width + 1]

    for _ in range(5):
        shape = tuple(int(side) for side in rng.integers(60, 200, 2))
        one, other = (cv2.GaussianBlur(rng.random(shape), (0, 0), 9) > 0.5 for _ in range(2))
        here, there = published(one.astype(np.uint8)), published(other.astype(np.uint8))
        expected = ((here * there) > 0).sum() / ((here + there) > 0).sum()
        assert boundary_iou(one, other) == pytest.approx(expected)
