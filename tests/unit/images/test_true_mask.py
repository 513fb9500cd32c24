"""True masks as data sets store them: 0/255, 0/1, 16 bits, palettes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from worker.contract.errors import UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images.true_mask import read_true_mask

LIMITS = LimitSettings()
INSIDE = np.zeros((6, 8), bool)
INSIDE[2:5, 1:4] = True


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def grey(high: int, dtype: type = np.uint8) -> bytes:
    return png(Image.fromarray((INSIDE * high).astype(dtype)))


def palette(colour: tuple[int, int, int]) -> bytes:
    image = Image.fromarray(INSIDE.astype(np.uint8)).convert("P")
    image.putdata(INSIDE.astype(np.uint8).ravel().tolist())
    image.putpalette([0, 0, 0, *colour])
    return png(image)


@pytest.mark.parametrize(
    "data",
    [
        grey(255),
        grey(1),
        grey(1, np.uint16),
        grey(65535, np.uint16),
        png(Image.fromarray(INSIDE)),
        png(Image.fromarray(np.stack([INSIDE] * 3, axis=-1).astype(np.uint8))),
        palette((255, 255, 255)),
        palette((1, 1, 1)),
        palette((128, 0, 0)),
    ],
    ids=[
        "0/255",
        "0/1",
        "0/1 of 16 bits",
        "16 bits",
        "1 bit",
        "RGB 0/1",
        "palette",
        "dark palette",
        "coloured palette",
    ],
)
def test_every_way_of_storing_a_mask_gives_the_same(data):
    truth = read_true_mask(data, LIMITS)

    assert truth.dtype == np.uint8
    assert np.array_equal(truth, INSIDE * 255)


def test_soft_edges_are_kept():
    soft = np.array([[0, 64, 128, 255]], np.uint8)

    assert np.array_equal(read_true_mask(png(Image.fromarray(soft)), LIMITS), soft)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_without_a_subject_is_all_background(dtype):
    assert not read_true_mask(grey(0, dtype), LIMITS).any()


@pytest.mark.parametrize("data", [grey(2), grey(38), grey(100, np.uint16), grey(20_000, np.uint16)])
def test_levels_without_an_agreed_meaning_are_refused(data):
    with pytest.raises(UnsupportedFormat, match="a true mask holds 0 and 255, 0 and 1, or grey of 16 bits"):
        read_true_mask(data, LIMITS)
