"""Agreement and quality of masks whose scores are computed by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from worker.contract.errors import SetupError
from worker.convert.evaluate import scores


def square(side: int = 100, value: int = 255, left: int = 20) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[20:60, left : left + 40] = value
    return mask


def test_a_mask_agrees_with_itself():
    got, worst = scores.agreement([(square(), square())])

    assert (got.mae, got.iou, got.max_abs, got.pictures, worst) == (0.0, 1.0, 0.0, 1, 1.0)


def test_agreement_over_two_pictures():
    half_off = (square(left=40), square())  # 20 of 40 columns shared: 1/3 of the union

    got, worst = scores.agreement([half_off, (square(), square())])

    assert got.mae == pytest.approx((2 * 20 * 40 / 100**2) / 2)
    assert got.iou == pytest.approx((1 / 3 + 1) / 2)
    assert worst == pytest.approx(1 / 3)
    assert (got.max_abs, got.pictures) == (1.0, 2)


@pytest.mark.parametrize(("level", "iou"), [(127, 0.0), (128, 1.0)])
def test_half_is_the_threshold_of_the_subject(level, iou):
    assert scores.agreement([(square(value=level), square())])[0].iou == iou


def test_two_empty_masks_agree():
    empty = np.zeros((8, 8), np.uint8)

    assert scores.agreement([(empty, empty)])[0].iou == 1.0


def test_an_empty_list_of_pairs_is_refused():
    with pytest.raises(ValueError, match="no pictures"):
        scores.agreement([])
    with pytest.raises(ValueError, match="no pictures"):
        scores.quality([])


def test_the_true_mask_itself_scores_perfectly():
    got = scores.quality([(square(), square())])

    assert (got.s_measure, got.weighted_f, got.mae, got.iou, got.pictures) == (pytest.approx(1), 1.0, 0.0, 1.0, 1)
    assert got.boundary_iou == 1.0
    assert got.e_measure > 0.99


def test_every_measure_gets_worse_with_the_error():
    good = scores.quality([(square(left=22), square())])
    bad = scores.quality([(square(left=50), square())])

    assert good.s_measure > bad.s_measure
    assert good.weighted_f > bad.weighted_f
    assert good.e_measure > bad.e_measure
    assert good.iou > bad.iou
    assert good.boundary_iou > bad.boundary_iou
    assert good.mae < bad.mae
    assert good.mae == pytest.approx(2 * 2 * 40 / 100**2)


def test_the_scores_of_a_set_are_the_means_of_its_pictures():
    pairs = [(square(left=22), square()), (square(left=50), square())]
    each = [scores.score(*pair) for pair in pairs]

    got = scores.quality(pairs)

    assert got.pictures == 2
    for name in ("s_measure", "weighted_f", "e_measure", "mae", "iou", "boundary_iou"):
        assert getattr(got, name) == pytest.approx(sum(getattr(one, name) for one in each) / 2)


def test_without_pysodmetrics_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "py_sod_metrics", None)

    with pytest.raises(SetupError, match=r"pip install 'maskmill\[convert\]'"):
        scores.quality([(square(), square())])
