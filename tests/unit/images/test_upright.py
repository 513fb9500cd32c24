"""A box is transformed like the picture that contains it."""

import pytest
from PIL import Image

from worker.images.upright import orient, orient_box

BOX = (3, 5, 20, 11)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_picture(orientation):
    image = Image.new("L", (40, 30))
    image.paste(255, BOX)

    assert orient_box(BOX, image.size, orientation) == orient(image, orientation).getbbox()


@pytest.mark.parametrize("orientation", [0, 1, 9, None, "6", 1.0])
def test_an_invalid_orientation_changes_nothing(orientation):
    image = Image.new("L", (4, 3))

    assert orient(image, orientation) is image
    assert orient_box((0, 0, 4, 3), image.size, orientation) == (0, 0, 4, 3)
