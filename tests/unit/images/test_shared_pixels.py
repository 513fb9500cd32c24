"""Pixels read where they lie in memory: the same as Pillow's copy, for as long as an array refers to them."""

import gc

import numpy as np
import pytest
from PIL import Image

from worker.images.shared_pixels import pixels_of, shared_pixels

SIZES = [(1, 1), (3, 5), (7, 2), (1633, 9), (2, 1225)]


def noise(mode, size):
    shape = (size[1], size[0], 4)[: 3 if mode == "RGBA" else 2]
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGBA"])
@pytest.mark.parametrize("size", SIZES)
def test_the_pixels_are_those_of_the_image(mode, size):
    image = noise(mode, size)

    found = shared_pixels(image)

    assert found.shape == (size[1], size[0], len(mode))
    assert np.array_equal(found.reshape(np.asarray(image).shape), np.asarray(image))


def test_they_are_not_copied_and_cannot_be_written():
    image = noise("L", (64, 64)).copy()  # what NumPy made is read-only: Pillow would copy it first
    found = shared_pixels(image)

    image.putpixel((5, 7), 99)

    assert found[7, 5, 0] == 99
    assert not found.flags.writeable


@pytest.mark.parametrize("is_copy", [False, True])
def test_they_outlive_the_image(is_copy):
    image = noise("L", (1000, 1000))
    image = image.copy() if is_copy else image
    expected = np.array(image)
    found = shared_pixels(image)[:, :, 0][1:]

    del image
    gc.collect()
    others = [noise("L", (1000, 1000)).point(lambda level: 255 - level) for _ in range(5)]

    assert np.array_equal(found, expected[1:])
    assert len(others) == 5


@pytest.mark.parametrize("mode", ["RGB", "P", "1", "I;16", "LA", "F"])
def test_modes_that_lie_otherwise_in_memory_are_left_to_pillow(mode):
    assert shared_pixels(Image.new(mode, (4, 4))) is None


def test_an_image_in_several_blocks_is_left_to_pillow():
    image = Image.new("L", (5000, 4000), 3)
    image.putpixel((4999, 3999), 4)

    assert shared_pixels(image) is None
    assert pixels_of(image)[-1, -2:].tolist() == [3, 4]
    assert shared_pixels(Image.new("L", (0, 0))) is None


def test_the_pixels_of_a_mask_have_two_dimensions():
    image = noise("L", (7, 3))

    assert np.array_equal(pixels_of(image), np.asarray(image))
