"""A part of a picture is found again where turning has brought it."""

import pytest
from PIL import Image

from worker.images.upright import turned, turned_box

BOX = (3, 5, 20, 11)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_its_picture(orientation):
    image = Image.new("L", (40, 30))
    image.paste(255, BOX)

    assert turned_box(BOX, image.size, orientation) == turned(image, orientation).getbbox()


@pytest.mark.parametrize("orientation", [0, 1, 9, None, "6", 1.0])
def test_what_means_nothing_turns_nothing(orientation):
    image = Image.new("L", (4, 3))

    assert turned(image, orientation) is image
    assert turned_box((0, 0, 4, 3), image.size, orientation) == (0, 0, 4, 3)
