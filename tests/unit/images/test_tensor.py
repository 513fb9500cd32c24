"""Pictures to tensors and masks to pictures, compared with Pillow's own resize."""

import numpy as np
import pytest
from PIL import Image

from tests.support.edge_case_images import scene
from tests.support.pixels import assert_resized
from worker.contract.input_size import InputSize
from worker.images.decode import Picture
from worker.images.tensor import BACKDROP, normalise, to_mask, to_tensor


def noise(*shape):
    return np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(160, 120), (33, 200), (64, 64), (1, 1), (3000, 2)])
def test_tensor_is_pillows_antialiased_bilinear(size):
    image = Image.fromarray(noise(size[1], size[0], 3))
    tensor = to_tensor(Picture(image), InputSize.square(64))
    assert tensor.shape == (1, 64, 64, 3)
    assert tensor.dtype == np.uint8
    assert_resized(tensor[0], image, (64, 64))


def test_shrinking_is_antialiased():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    tensor = to_tensor(Picture(Image.fromarray(stripes)), InputSize.square(32))
    assert 120 <= tensor[0, 4:-4, 4:-4].min() <= tensor[0, 4:-4, 4:-4].max() <= 135


def test_tensor_can_be_shared_with_a_runtime():
    tensor = to_tensor(Picture(scene()), InputSize.square(32))
    assert tensor.flags.c_contiguous
    assert tensor.flags.writeable


def test_channels_are_rgb():
    assert to_tensor(Picture(Image.new("RGB", (5, 5), (1, 2, 3))), InputSize.square(8))[0, 0, 0].tolist() == [1, 2, 3]


def test_transparent_parts_are_seen_as_backdrop():
    alpha = Image.new("L", (64, 64), 255)
    alpha.paste(0, (0, 0, 32, 64))
    tensor = to_tensor(Picture(Image.new("RGB", (64, 64), (200, 0, 50)), alpha), InputSize.square(64))
    assert tensor[0, 5, 5].tolist() == list(BACKDROP)
    assert tensor[0, 5, 60].tolist() == [200, 0, 50]


def test_half_transparent_parts_are_mixed():
    picture = Picture(Image.new("RGB", (4, 4), (0, 255, 128)), Image.new("L", (4, 4), 128))
    assert np.abs(to_tensor(picture, InputSize.square(4))[0, 0, 0].astype(int) - [64, 192, 128]).max() <= 1


@pytest.mark.parametrize("size", [(160, 120), (31, 500), (1, 1), (64, 64)])
def test_mask_has_the_size_of_the_picture(size):
    mask = noise(64, 64)
    image = to_mask(mask, *size)
    assert (image.mode, image.size) == ("L", size)
    assert_resized(image, Image.fromarray(mask), size)


def test_mask_round_trip_keeps_the_shape():
    size, width, height = 64, 300, 140
    left = np.zeros((size, size), np.uint8)
    left[:, : size // 4] = 255
    mask = np.asarray(to_mask(left, width, height))
    assert (mask[:, : width // 4 - 5] == 255).all()
    assert (mask[:, width // 4 + 5 :] == 0).all()
    again = to_tensor(Picture(Image.fromarray(mask).convert("RGB")), InputSize.square(size))[0, :, :, 0]
    # A soft edge may move by one step of the smaller grid, not more.
    assert np.array_equal(again[:, : size // 4 - 1], left[:, : size // 4 - 1])
    assert np.array_equal(again[:, size // 4 + 1 :], left[:, size // 4 + 1 :])


@pytest.mark.parametrize("bad", [noise(1, 8, 8), noise(8, 8).astype(np.float32)])
def test_mask_of_another_kind_is_refused(bad):
    with pytest.raises(ValueError, match="u8"):
        to_mask(bad, 10, 10)


def test_normalise():
    tensor = noise(2, 4, 5, 3)
    mean, scale = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    out = normalise(tensor, mean, scale)
    assert (out.shape, out.dtype) == ((2, 3, 4, 5), np.float32)
    assert out.flags.c_contiguous
    for channel in range(3):
        expected = (tensor[1, 2, 3, channel] - mean[channel]) / scale[channel]
        assert out[1, channel, 2, 3] == pytest.approx(expected, rel=1e-6)


def test_normalise_refuses_other_channels():
    with pytest.raises(ValueError, match="channels"):
        normalise(noise(1, 2, 2, 3), (0.0,), (1.0,))


def test_a_network_that_is_not_square_gets_its_height_and_width():
    stripes = np.repeat(np.array([0, 255], np.uint8), 10)[:, None, None] * np.ones((20, 20, 3), np.uint8)

    tensor = to_tensor(Picture(Image.fromarray(stripes)), InputSize(32, 64))

    assert tensor.shape == (1, 32, 64, 3)
    assert (tensor[0, 0].max(), tensor[0, -1].min()) == (0, 255)
