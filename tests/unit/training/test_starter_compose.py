"""Composites: whole, deterministic, with a mask that belongs to the picture."""

from __future__ import annotations

import numpy as np
import pytest

from support.training import little_library
from worker.training import backdrops, compose

SIDE = 96


@pytest.fixture(scope="module")
def found():
    return little_library()


def test_a_sample_depends_on_seed_and_number_alone(found):
    one, again, other = (compose.sample(found, SIDE, 1, number) for number in (7, 7, 8))

    assert np.array_equal(one.pixels, again.pixels) and np.array_equal(one.alpha, again.alpha)
    assert not np.array_equal(one.pixels, other.pixels)
    assert not np.array_equal(one.pixels, compose.sample(found, SIDE, 2, 7).pixels)


def test_samples_are_pictures_with_a_subject(found):
    samples = [compose.sample(found, SIDE, 1, number) for number in range(60)]

    shares = [np.mean(one.alpha >= 128) for one in samples]
    assert all(one.pixels.shape == (SIDE, SIDE, 3) and one.pixels.dtype == np.uint8 for one in samples)
    assert all(one.alpha.shape == (SIDE, SIDE) and one.alpha.dtype == np.uint8 for one in samples)
    assert np.mean(np.array(shares) > 0.01) >= 0.95 and max(shares) < 0.95


def test_the_mask_lies_where_the_subject_is(found, monkeypatch):
    """Without light, texture and camera, red is red: every pixel of the mask shows it, and no other does."""
    monkeypatch.setattr(compose, "_TEXTURED", 0.0)
    monkeypatch.setattr(compose, "_lit", lambda body, rng: body)
    monkeypatch.setattr(compose, "_seen", lambda pixels, rng: np.clip(pixels, 0, 255).astype(np.uint8))
    monkeypatch.setattr(compose, "backdrop", lambda library, side, rng: np.zeros((side, side, 3), np.uint8))
    for number in range(20):
        made = compose.sample(found, SIDE, 1, number)
        red = made.pixels[..., 0].astype(int)
        assert red[made.alpha >= 250].min(initial=255) > 15  # camouflage takes up to nine tenths of it
        assert red[made.alpha <= 2].max(initial=0) < 5


@pytest.mark.parametrize("kind", [backdrops.flat, backdrops.studio, backdrops.clouds, backdrops.repeated])
def test_backdrops_fill_the_picture(kind):
    made = kind(SIDE, np.random.default_rng(3))

    assert made.shape == (SIDE, SIDE, 3) and np.isfinite(made).all()


def test_a_crowded_background_is_no_subject(found, monkeypatch):
    """Shapes behind are in the picture and not in the mask."""
    monkeypatch.setattr(compose, "_added", lambda library, pixels, alpha, rng: (pixels, alpha))

    made = [compose.sample(found, SIDE, 1, number, crowded=1.0) for number in range(8)]

    assert max(one.alpha.max() for one in made) == 0
    assert min(one.pixels.std() for one in made) > 3


def test_noise_runs_from_0_to_1():
    values = backdrops.noise(SIDE, np.random.default_rng(1), roughness=0.7)

    assert (values.min(), values.max()) == (0, 1)
