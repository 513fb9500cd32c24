"""Accuracy of the shipped `contrast` on pictures with a known mask."""

from __future__ import annotations

import numpy as np
import pytest

from integration.convert.contrast.contrast_pictures import FAMILIES, iou, picture

SEEDS = range(6)
OTHER_SIZES = ((640, 427), (200, 300))


@pytest.mark.parametrize("family", FAMILIES)
def test_subjects_are_found_at_the_size_of_the_network(mask, family):
    scores = [iou(mask(p.pixels) >= 128, p.truth) for p in (picture(family, seed) for seed in SEEDS)]

    assert np.mean(scores) >= 0.97
    assert min(scores) >= 0.90


@pytest.mark.parametrize("family", FAMILIES)
def test_subjects_are_found_in_pictures_of_other_sizes(mask, family):
    pictures = [picture(family, 1000 + i, *size) for i, size in enumerate(OTHER_SIZES)]

    scores = [iou(mask(p.pixels) >= 128, p.truth) for p in pictures]

    assert min(scores) >= 0.90


@pytest.mark.parametrize("seed", [12, 19, 23])
def test_noise_does_not_hide_a_weak_subject(mask, seed):
    """Without denoising, half or all of the subject is lost in these pictures."""
    shown = picture("weak", seed)

    assert iou(mask(shown.pixels) >= 128, shown.truth) >= 0.95


@pytest.mark.parametrize("seed", [7, 29])
def test_the_tip_of_a_radial_gradient_is_background(mask, seed):
    """With the polynomial alone, the tip becomes part of the subject in these pictures."""
    shown = picture("radial", seed)

    assert iou(mask(shown.pixels) >= 128, shown.truth) >= 0.98


@pytest.mark.parametrize("family", ["flat", "noisy"])
def test_masks_are_white_inside_and_black_outside(mask, family):
    """The mask is soft only along the outline: two pixels to either side it is saturated."""
    shown = picture(family, 1)
    seam = np.zeros_like(shown.truth)
    for axis in (0, 1):
        for step in (-2, -1, 1, 2):
            seam |= np.roll(shown.truth, step, axis) != shown.truth

    levels = mask(shown.pixels)

    assert np.mean(levels[shown.truth & ~seam] >= 250) > 0.99
    assert np.mean(levels[~shown.truth & ~seam] <= 5) > 0.99


def test_a_subject_along_a_whole_side_is_found(mask):
    """As in a portrait, the subject covers a fifth of the border, at the bottom."""
    pixels = np.full((320, 320, 3), (150, 170, 190), np.uint8)
    truth = np.zeros((320, 320), bool)
    truth[200:, 20:300] = truth[60:200, 100:220] = True
    pixels[truth] = (60, 40, 90)

    assert iou(mask(pixels) >= 128, truth) >= 0.95


def test_a_narrow_hole_is_filled_and_a_wide_one_stays_open(mask):
    y, x = np.mgrid[:320, :320]
    radius = np.hypot(x - 160, y - 160)
    pixels = np.full((320, 320, 3), 200, np.uint8)
    pixels[radius < 120] = (150, 30, 30)

    narrow, wide = pixels.copy(), pixels.copy()
    narrow[radius < 14] = 200
    wide[radius < 60] = 200

    assert mask(narrow)[radius < 14].min() >= 250
    assert mask(wide)[radius < 57].max() <= 5
