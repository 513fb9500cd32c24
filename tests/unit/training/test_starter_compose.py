"""Composites are complete and deterministic, and each mask fits its picture."""

from __future__ import annotations

import numpy as np
import pytest

from support.training import small_library
from worker.training import backdrops, compose

SIDE = 96


@pytest.fixture(scope="module")
def found():
    return small_library()


def test_a_composite_depends_only_on_seed_and_number(found):
    one, again, other = (compose.composite(found, SIDE, 1, number) for number in (7, 7, 8))

    assert np.array_equal(one.pixels, again.pixels) and np.array_equal(one.alpha, again.alpha)
    assert not np.array_equal(one.pixels, other.pixels)
    assert not np.array_equal(one.pixels, compose.composite(found, SIDE, 2, 7).pixels)


def test_composites_are_pictures_with_a_subject(found):
    made = [compose.composite(found, SIDE, 1, number) for number in range(60)]

    shares = [np.mean(one.alpha >= 128) for one in made]
    assert all(one.pixels.shape == (SIDE, SIDE, 3) and one.pixels.dtype == np.uint8 for one in made)
    assert all(one.alpha.shape == (SIDE, SIDE) and one.alpha.dtype == np.uint8 for one in made)
    assert np.mean(np.array(shares) > 0.01) >= 0.95 and max(shares) < 0.95


def test_the_mask_covers_exactly_the_subject(found, monkeypatch):
    """Without relighting, texture and camera the red subject stays red: on all pixels of the mask and on no others."""
    monkeypatch.setattr(compose, "_TEXTURED", 0.0)
    monkeypatch.setattr(compose, "_relit", lambda body, rng: body)
    monkeypatch.setattr(compose, "_camera", lambda pixels, rng: np.clip(pixels, 0, 255).astype(np.uint8))
    monkeypatch.setattr(compose, "backdrop", lambda library, side, rng: np.zeros((side, side, 3), np.uint8))
    for number in range(20):
        made = compose.composite(found, SIDE, 1, number)
        red = made.pixels[..., 0].astype(int)
        assert red[made.alpha >= 250].min(initial=255) > 15  # camouflage removes up to nine tenths of the red
        assert red[made.alpha <= 2].max(initial=0) < 5


@pytest.mark.parametrize("kind", [backdrops.gradient, backdrops.studio, backdrops.clouds, backdrops.pattern])
def test_backdrops_fill_the_picture(kind):
    made = kind(SIDE, np.random.default_rng(3))

    assert made.shape == (SIDE, SIDE, 3) and np.isfinite(made).all()


def test_a_crowded_background_is_not_a_subject(found, monkeypatch):
    """Shapes of the background appear in the picture, but not in the mask."""
    monkeypatch.setattr(compose, "_with_subject", lambda library, pixels, alpha, rng: (pixels, alpha))

    made = [compose.composite(found, SIDE, 1, number, crowded=1.0) for number in range(8)]

    assert max(one.alpha.max() for one in made) == 0
    assert min(one.pixels.std() for one in made) > 3


def test_noise_runs_from_0_to_1():
    values = backdrops.noise(SIDE, np.random.default_rng(1), roughness=0.7)

    assert (values.min(), values.max()) == (0, 1)
