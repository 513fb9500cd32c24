"""The matte and the cut-out: alpha of mask and input, colours kept, removed background gone."""

import numpy as np
import pytest
from PIL import Image

from tests.support.awkward import SUBJECT, scene
from worker.images.compose import cutout, matte
from worker.images.decode import Picture

SIZE = (160, 120)


def grey(values):
    return Image.fromarray(np.asarray(values, np.uint8))


def ramp():
    """0 on the left to 255 on the right."""
    return grey(np.tile(np.linspace(0, 255, SIZE[0]).astype(np.uint8), (SIZE[1], 1)))


def test_alpha_is_the_mask():
    image = cutout(Picture(scene()), ramp())
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image)[:, :, 3], np.asarray(ramp()))


def test_colour_is_kept_wherever_alpha_is_not_zero():
    image = np.asarray(cutout(Picture(scene()), ramp()))
    seen = image[:, :, 3] > 0
    assert np.array_equal(image[seen][:, :3], np.asarray(scene())[seen])
    assert image[60, 100, :3].tolist() == list(SUBJECT)


def test_removed_background_cannot_be_recovered():
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[40:80, 60:100] = 1
    image = np.asarray(cutout(Picture(scene()), grey(mask)))
    assert (image[mask == 0] == 0).all()
    assert (image[mask == 1][:, :3] > 0).any()


def test_input_alpha_multiplies():
    alpha = grey(np.full(SIZE[::-1], 128))
    image = np.asarray(cutout(Picture(scene(), alpha), ramp()))
    expected = np.round(np.asarray(ramp()) * (128 / 255))
    assert np.abs(image[:, :, 3] - expected).max() <= 1


def test_input_transparency_also_clears_colour():
    alpha = np.full(SIZE[::-1], 255, np.uint8)
    alpha[:, :80] = 0
    image = np.asarray(cutout(Picture(scene(), grey(alpha)), grey(np.full(SIZE[::-1], 255))))
    assert (image[:, :80] == 0).all()
    assert (image[:, 80:, 3] == 255).all()


def test_matte_of_an_opaque_picture_is_the_mask():
    mask = ramp()
    assert matte(Picture(scene()), mask) is mask


def test_matte_hides_what_the_input_hides():
    alpha = np.full(SIZE[::-1], 255, np.uint8)
    alpha[:, 80:] = 0
    assert np.asarray(matte(Picture(scene(), grey(alpha)), ramp()))[:, 80:].max() == 0


def test_inputs_are_left_alone():
    picture, mask = Picture(scene()), ramp()
    before = picture.rgb.tobytes(), mask.tobytes()
    cutout(picture, mask)
    assert (picture.rgb.tobytes(), mask.tobytes()) == before


def test_one_pixel():
    image = cutout(Picture(Image.new("RGB", (1, 1), SUBJECT)), Image.new("L", (1, 1), 7))
    assert image.getpixel((0, 0)) == (*SUBJECT, 7)


@pytest.mark.parametrize("mask", [Image.new("L", (120, 160)), Image.new("RGB", SIZE)])
def test_mask_of_another_size_or_mode_is_refused(mask):
    with pytest.raises(ValueError, match="to_mask"):
        cutout(Picture(scene()), mask)
