"""Foreground colours at soft edges: close to the truth where it is known, and unchanged elsewhere."""

import numpy as np
import pytest
from PIL import Image

from tests.support.photographs import HEAD, photograph
from worker.images import refine as module
from worker.images.refine import foreground

GREEN = (30, 200, 60)


def disc(size=(500, 400), softness=3.0):
    """Return alpha u8, and a textured red foreground f32."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot(x - width / 2, y - height / 2)
    alpha = (255 / (1 + np.exp((distance - min(size) * 0.3) / softness))).round().astype(np.uint8)
    front = np.stack((190 + 30 * np.sin(x / 40), 40 + 20 * np.cos(y / 30), 50 + 0 * x), -1)
    return alpha, front


def mixed(alpha, front, back):
    share = alpha[..., np.newaxis] / 255
    return Image.fromarray((share * front + (1 - share) * np.array(back)).round().astype(np.uint8))


def error(image, alpha, front):
    """Return the mean distance from the true foreground over soft pixels, weighted by opacity as the eye sees it."""
    soft = (alpha > 0) & (alpha < 255)
    share = alpha[soft] / 255
    return (np.abs(np.asarray(image, float)[soft] - front[soft]).mean(-1) * share).sum() / share.sum()


def test_the_old_background_leaves_the_edge():
    alpha, front = disc()
    image = mixed(alpha, front, GREEN)

    refined = foreground(image, Image.fromarray(alpha))

    assert error(image, alpha, front) > 15
    assert error(refined, alpha, front) < 3.5


@pytest.mark.parametrize("softness", [1.5, 3, 8])
def test_tiles_and_the_small_copy_cost_little_accuracy(softness):
    """Compared with the method of the paper on the whole picture at full size."""
    alpha, front = disc(softness=softness)
    image = mixed(alpha, front, GREEN)
    values, weight = np.asarray(image, np.float32), alpha[..., np.newaxis].astype(np.float32) / 255
    fused = back = values
    for window in (91, 7):
        near = module._mean(fused, weight, window), module._mean(back, 1 - weight, window)
        fused, back = module._fused(values, weight, *near), near[1]

    refined = foreground(image, Image.fromarray(alpha))

    assert error(refined, alpha, front) < error(fused, alpha, front) + 0.6


def test_a_new_background_shows_no_rim_of_the_old_one():
    alpha, front = disc()
    refined = foreground(mixed(alpha, front, (255, 255, 255)), Image.fromarray(alpha))
    expected, shown = mixed(alpha, front, (0, 0, 0)), mixed(alpha, np.asarray(refined, float), (0, 0, 0))

    assert np.abs(np.asarray(shown, float) - np.asarray(expected)).max() < 25
    assert np.abs(np.asarray(shown, float) - np.asarray(expected)).mean() < 1


def test_only_soft_pixels_change():
    alpha, front = disc()
    image = mixed(alpha, front, GREEN)

    refined = np.asarray(foreground(image, Image.fromarray(alpha)))

    hard = (alpha == 0) | (alpha == 255)
    assert np.array_equal(refined[hard], np.asarray(image)[hard])
    assert (refined[~hard] != np.asarray(image)[~hard]).any()


@pytest.mark.parametrize("value", [0, 255])
def test_without_soft_edges_the_same_picture_is_returned(value):
    image = photograph("coffee.png")
    assert foreground(image, Image.new("L", image.size, value)) is image


def test_tiles_do_not_show():
    """Pixels left and right of a border between tiles get the same estimate."""
    alpha = np.full((260, 300), 128, np.uint8)
    refined = np.asarray(foreground(Image.new("RGB", (300, 260), (120, 130, 140)), Image.fromarray(alpha))).astype(int)

    assert np.abs(np.diff(refined, axis=1)).max() <= 1
    assert np.abs(np.diff(refined, axis=0)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (5, 3), (129, 128)])
def test_any_size(size):
    image = foreground(Image.new("RGB", size, (9, 99, 199)), Image.new("L", size, 100))

    assert (image.mode, image.size) == ("RGB", size)
    assert np.abs(np.asarray(image).astype(int) - (9, 99, 199)).max() <= 1


def test_a_photograph_stays_a_photograph():
    image = photograph("astronaut.png")
    alpha = Image.fromarray(HEAD).resize(image.size)
    refined = foreground(image, alpha)
    difference = np.abs(np.asarray(refined).astype(int) - np.asarray(image)).mean(-1)
    share = np.asarray(alpha) / 255

    assert difference[share > 0.95].mean() < 2
    assert difference[(share > 0.1) & (share < 0.5)].mean() > 5
