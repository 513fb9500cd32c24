"""Cut-outs keep the colours of the subject and clear the removed background; composites show the subject in front."""

import numpy as np
from PIL import Image

from tests.support.edge_case_images import SUBJECT, scene
from worker.images.compose import composite, cutout

SIZE = (160, 120)


def grey(values):
    return Image.fromarray(np.asarray(values, np.uint8))


def ramp():
    """0 on the left to 255 on the right."""
    return grey(np.tile(np.linspace(0, 255, SIZE[0]).astype(np.uint8), (SIZE[1], 1)))


def test_alpha_is_the_mask():
    image = cutout(scene(), ramp())
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image)[:, :, 3], np.asarray(ramp()))


def test_colour_is_kept_wherever_alpha_is_not_zero():
    image = np.asarray(cutout(scene(), ramp()))
    seen = image[:, :, 3] > 0
    assert np.array_equal(image[seen][:, :3], np.asarray(scene())[seen])
    assert image[60, 100, :3].tolist() == list(SUBJECT)


def test_removed_background_cannot_be_recovered():
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[40:80, 60:100] = 1
    image = np.asarray(cutout(scene(), grey(mask)))
    assert (image[mask == 0] == 0).all()
    assert (image[mask == 1][:, :3] > 0).any()


def test_a_composite_is_the_subject_in_front():
    image = np.asarray(composite(scene(), ramp(), Image.new("RGB", SIZE, (0, 90, 200)))).astype(float)
    share = np.asarray(ramp())[..., np.newaxis] / 255
    expected = share * np.asarray(scene()) + (1 - share) * np.array((0, 90, 200))
    assert np.abs(image - expected).max() <= 1


def test_inputs_are_left_alone():
    picture, mask = scene(), ramp()
    before = picture.tobytes(), mask.tobytes()
    cutout(picture, mask)
    assert (picture.tobytes(), mask.tobytes()) == before


def test_one_pixel():
    image = cutout(Image.new("RGB", (1, 1), SUBJECT), Image.new("L", (1, 1), 7))
    assert image.getpixel((0, 0)) == (*SUBJECT, 7)
