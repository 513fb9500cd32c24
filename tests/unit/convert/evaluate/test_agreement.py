"""`worker.convert.evaluate.agreement`: the measures, the limits, and refused input."""

from __future__ import annotations

import numpy as np
import pytest

from worker.convert.evaluate.agreement import Agreement, compare
from worker.model.format.agreement_limits import LIMITS, Limit


def masks(*rows: list[float]) -> np.ndarray:
    return np.array([[row] for row in rows], np.float32)


def test_equal_masks_agree_fully():
    some = masks([0.0, 0.4, 0.6, 1.0])

    assert compare(some, some) == Agreement(mae=0.0, iou=1.0, max_abs=0.0, pictures=1)


def test_each_measure_has_the_defined_value():
    got = compare(masks([0.0, 0.7, 0.6, 1.0]), masks([0.0, 0.4, 0.6, 1.0]))

    assert got.mae == pytest.approx(0.3 / 4)
    assert got.iou == pytest.approx(2 / 3)
    assert got.max_abs == pytest.approx(0.3)


def test_iou_is_the_mean_over_pictures_and_empty_ones_agree():
    one = masks([0.0, 0.0], [1.0, 1.0])
    other = masks([0.1, 0.2], [1.0, 0.0])

    assert compare(one, other).iou == pytest.approx((1 + 0.5) / 2)


@pytest.mark.parametrize("other", [masks([0.0]), np.zeros((0, 1, 2), np.float32)])
def test_masks_that_cannot_be_compared_are_refused(other):
    with pytest.raises(ValueError, match="cannot be compared"):
        compare(other, masks([0.0, 1.0]) if other.size else other)


@pytest.mark.parametrize(
    ("mae", "iou", "words"),
    [
        (0.01, 0.96, ""),
        (0.02, 0.95, ""),
        (0.03, 0.96, "MAE 0.0300 above 0.02"),
        (0.01, 0.9, "IoU 0.9000 below 0.95"),
        (0.03, 0.9, "MAE 0.0300 above 0.02, IoU 0.9000 below 0.95"),
        (float("nan"), float("nan"), "MAE nan above 0.02, IoU nan below 0.95"),
    ],
)
def test_a_limit_names_what_is_out_of_bounds(mae, iou, words):
    assert Agreement(mae, iou, 1.0, 1).complaint(Limit(mae=0.02, iou=0.95)) == words


def test_every_precision_but_the_reference_has_a_limit():
    assert set(LIMITS) == {"fp16", "int8wo", "int8"}
