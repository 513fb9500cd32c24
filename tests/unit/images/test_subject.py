"""Crop, size and opacity of outputs."""

import numpy as np
import pytest
from PIL import Image, ImageChops

from tests.support.photographs import HEAD, jpeg, photograph
from worker.contract.input_size import InputSize
from worker.contract.outputs import OutputKind, OutputOptions
from worker.contract.settings import LimitSettings
from worker.images.decode import FULL_SIZE, DecodeTarget, Picture, decode
from worker.images.subject import Frame, alpha, colours, decode_target, frame, small_matte
from worker.images.tensor import to_mask

MASK, CUTOUT, COMPOSITE = OutputKind
SIZE = (640, 480)


def box_mask(left, top, right, bottom, size=64):
    mask = np.zeros((size, size), np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


def framed(mask, size=SIZE, **options):
    return frame(size, Image.fromarray(mask), OutputOptions(**options))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, DecodeTarget(512, 512)),
        ({"crop": True, "max_side": 100}, DecodeTarget(512, 512)),
        ({"outputs": (MASK, CUTOUT)}, FULL_SIZE),
        ({"outputs": (COMPOSITE,), "max_side": 1600}, DecodeTarget(512, 1600)),
        ({"outputs": (CUTOUT,), "max_side": 100}, DecodeTarget(512, 512)),
        ({"outputs": (CUTOUT,), "max_side": 1600, "crop": True}, FULL_SIZE),
    ],
)
def test_full_size_is_decoded_only_if_an_output_needs_it(options, expected):
    assert decode_target(OutputOptions(**options), InputSize.square(512)) == expected


def test_without_crop_everything_is_shown():
    assert framed(box_mask(10, 10, 20, 20)) == Frame((0, 0, 640, 480), (640, 480))


@pytest.mark.parametrize(
    ("margin", "box"),
    [
        ("0px", (90, 135, 230, 270)),  # columns 10 to 22 of 64 at 10 pixels each, one more on both sides
        ("30px", (60, 105, 260, 300)),
        ("10%", (76, 121, 244, 284)),
        ("9999px", (0, 0, 640, 480)),
    ],
)
def test_a_crop_is_the_subject_and_its_margin(margin, box):
    shown = framed(box_mask(10, 19, 22, 35), crop=True, crop_margin=margin)

    assert shown.box == box
    assert shown.size == (box[2] - box[0], box[3] - box[1])


def test_nothing_of_the_subject_is_cropped_away():
    options = OutputOptions(crop=True)
    picture = Picture(Image.new("RGB", (1500, 1001)))
    for place in [(0, 0, 5, 5), (59, 60, 64, 64), (30, 3, 31, 60)]:
        mask = box_mask(*place)
        whole = alpha(picture, mask, Frame((0, 0, *picture.size), picture.size), options)
        box = frame(picture.size, Image.fromarray(mask), options).box
        assert ImageChops.subtract(whole, Image.new("L", whole.size, 12)).getbbox() == _within(whole, box)


def _within(whole, box):
    kept = Image.new("L", whole.size)
    kept.paste(whole.crop(box), box)
    return ImageChops.subtract(kept, Image.new("L", whole.size, 12)).getbbox()


def test_faint_opacity_does_not_extend_the_crop():
    mask = np.full((64, 64), 8, np.uint8)
    mask[20:30, 20:30] = 255
    assert framed(mask, crop=True).box[0] > 100


def test_the_threshold_decides_what_is_cropped_to():
    mask = box_mask(30, 30, 34, 34)
    mask[10, 10] = 90
    assert framed(mask, crop=True).box[0] == 90
    assert framed(mask, crop=True, threshold=0.5).box[0] == 290


def test_an_empty_mask_is_not_cropped_to():
    assert framed(np.zeros((64, 64), np.uint8), crop=True).box == (0, 0, 640, 480)


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((640, 480), 320, (320, 240)),
        ((480, 640), 320, (240, 320)),
        ((640, 480), 640, (640, 480)),
        ((640, 480), 2000, (640, 480)),
        ((10_000, 3), 100, (100, 1)),
    ],
)
def test_larger_outputs_are_scaled_down_and_smaller_ones_left(size, most, expected):
    assert framed(HEAD, size, max_side=most).size == expected


def test_a_crop_is_scaled_after_it_was_cut():
    shown = framed(box_mask(10, 19, 22, 35), crop=True, max_side=70)
    assert shown.size == (70, round(135 * 70 / 140))


@pytest.mark.parametrize("size", [(640, 480), (333, 1001), (32, 40), (1, 1)])
def test_the_matte_of_a_whole_opaque_picture_is_the_resized_mask(size):
    whole = Frame((0, 0, *size), size)
    assert alpha(Picture(Image.new("RGB", size)), HEAD, whole, OutputOptions()) == to_mask(HEAD, *size)


def test_a_cropped_matte_is_a_part_of_the_whole_one():
    picture = Picture(Image.new("RGB", SIZE))
    whole = alpha(picture, HEAD, Frame((0, 0, *SIZE), SIZE), OutputOptions())
    part = alpha(picture, HEAD, Frame((100, 50, 400, 300), (300, 250)), OutputOptions())

    assert np.abs(np.asarray(part).astype(int) - np.asarray(whole.crop((100, 50, 400, 300)))).max() <= 1


def test_a_threshold_leaves_two_values():
    picture = Picture(Image.new("RGB", SIZE))
    matte = alpha(picture, HEAD, Frame((0, 0, *SIZE), SIZE), OutputOptions(threshold=0.5))
    soft = np.asarray(to_mask(HEAD, *SIZE))

    assert np.array_equal(np.asarray(matte), np.where(soft >= 128, 255, 0))


def test_transparent_parts_of_the_input_are_no_subject():
    hidden = Image.new("L", SIZE, 255)
    hidden.paste(0, (320, 0, 640, 480))
    picture = Picture(Image.new("RGB", SIZE), hidden)
    everything = np.full((64, 64), 255, np.uint8)

    assert np.asarray(alpha(picture, everything, Frame((0, 0, *SIZE), SIZE), OutputOptions()))[:, 320:].max() == 0
    assert small_matte(picture, everything).getextrema() == (0, 255)
    assert small_matte(picture, everything).getbbox()[2] <= 33
    assert frame(SIZE, small_matte(picture, everything), OutputOptions(crop=True)).box[2] <= 340


def test_colours_under_transparency_do_not_bleed_when_scaled():
    rgb = Image.new("RGB", (400, 400), (200, 30, 40))
    rgb.paste((0, 255, 0), (200, 0, 400, 400))
    hidden = Image.new("L", (400, 400), 255)
    hidden.paste(0, (200, 0, 400, 400))

    scaled = np.asarray(colours(Picture(rgb, hidden), Frame((0, 0, 400, 400), (77, 77))))

    assert scaled[:, :38, 1].max() < 40


def test_colours_of_a_scaled_decode_are_those_of_the_picture():
    image = photograph("astronaut.png").crop((0, 0, 509, 470))
    data = jpeg(image, 95)
    shown = Frame((0, 0, 509, 470), (200, round(470 * 200 / 509)))
    exact = colours(decode(data, LimitSettings()), shown)

    scaled = colours(decode(data, LimitSettings(), DecodeTarget(150, 200)), shown)

    difference = np.abs(np.asarray(scaled).astype(int) - np.asarray(exact))
    assert difference.mean() < 2
    assert np.percentile(difference, 99) < 15


def test_a_picture_keeps_the_longer_side_of_the_input_however_it_lies():
    for size in (InputSize(1440, 2560), InputSize(2560, 1440)):
        assert decode_target(OutputOptions(), size) == DecodeTarget(2560, 2560)
