"""The shipped `contrast` on pictures without a subject, and on degenerate ones."""

from __future__ import annotations

import numpy as np
import pytest

from integration.convert.contrast.contrast_pictures import MIN_DELTA_E, delta_e

RANDOM = np.random.default_rng(5)
Y, X = np.mgrid[:320, :320]


def even(*colour: int) -> np.ndarray:
    return np.full((320, 320, 3), colour, np.uint8)


def noisy(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return (pixels + RANDOM.normal(0, sigma, pixels.shape)).round().clip(0, 255).astype(np.uint8)


def ramp(low: int, high: int) -> np.ndarray:
    return np.repeat((low + (high - low) * (X + Y) / 638)[..., None], 3, axis=2).round().astype(np.uint8)


EMPTY = {
    "black": even(0, 0, 0),
    "white": even(255, 255, 255),
    "grey": even(128, 128, 128),
    "red": even(255, 0, 0),
    "blue": even(0, 0, 255),
    "noisy": noisy(even(90, 120, 150), 12),
    "dark and noisy": noisy(even(6, 6, 6), 6),
    "ramp": ramp(60, 200),
    "noisy ramp": noisy(ramp(40, 220), 8),
}

DEGENERATE = {
    "pure noise": RANDOM.integers(0, 256, (320, 320, 3), dtype=np.uint8),
    "black and white halves": np.where(X[..., None] < 160, even(0, 0, 0), even(255, 255, 255)),
    "one pixel": np.where(((X == 9) & (Y == 300))[..., None], even(255, 255, 255), even(0, 0, 0)),
    "checkerboard": np.where(((X + Y) % 2)[..., None] == 0, even(0, 0, 0), even(255, 255, 255)),
    "white frame": np.where((np.minimum(X, Y) < 4)[..., None], even(255, 255, 255), even(0, 0, 0)),
}


@pytest.mark.parametrize("name", [*EMPTY, *DEGENERATE])
def test_every_logit_is_finite(logits, name):
    values = logits({**EMPTY, **DEGENERATE}[name])

    assert np.isfinite(values).all()
    assert np.abs(values).max() <= 8.0


@pytest.mark.parametrize("name", EMPTY)
def test_a_picture_without_a_subject_has_no_foreground(mask, name):
    assert np.mean(mask(EMPTY[name]) >= 128) < 0.01


def test_a_weak_subject_on_a_clean_background_is_found(mask):
    back, front = (118, 120, 122), (150, 118, 128)
    assert delta_e(np.array(back), np.array(front)) < MIN_DELTA_E
    truth = np.hypot(X - 160, Y - 150) < 70

    levels = mask(np.where(truth[..., None], even(*front), even(*back)).astype(np.uint8))

    assert np.mean(levels[truth] >= 128) > 0.95
    assert np.mean(levels[~truth] >= 128) < 0.01


def test_the_same_picture_gives_the_same_mask(logits):
    first = logits(DEGENERATE["pure noise"])
    logits(EMPTY["ramp"])

    assert np.array_equal(logits(DEGENERATE["pure noise"]), first)
