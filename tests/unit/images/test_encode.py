"""Encoded files read back by Pillow: close pixels, exact alpha where promised, the profile, nothing under alpha 0."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from tests.support.photographs import CUP, photograph
from worker.contract.errors import TooLarge
from worker.contract.outputs import ImageFormat
from worker.images.compose import cutout
from worker.images.encode import MAX_SIDES, encode
from worker.images.tensor import to_mask

PNG, WEBP, AVIF, JPEG = ImageFormat
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CUP_MASK = to_mask(CUP, 600, 400)


def back(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def distance(one, other):
    return np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int))


@pytest.mark.parametrize("form", list(ImageFormat))
def test_a_photograph_is_written_in_every_format(form):
    image = photograph("coffee.png")
    data = encode(image, form, quality=85, icc=SRGB)
    read = back(data)

    assert (read.format, read.mode, read.size) == (form.name, "RGB", image.size)
    assert read.info["icc_profile"] == SRGB
    assert distance(read, image).mean() < (0.01 if form is PNG else 4)


@pytest.mark.parametrize("form", [WEBP, AVIF, JPEG])
def test_quality_decides_size_and_error(form):
    image = photograph("coffee.png")
    low, high = (encode(image, form, quality=quality) for quality in (30, 90))

    assert len(low) < len(high) / 2
    assert distance(back(low), image).mean() > distance(back(high), image).mean()


@pytest.mark.parametrize(("form", "error"), [(PNG, 0), (WEBP, 0), (AVIF, 4), (JPEG, 6)])
def test_a_mask_is_written_in_every_format(form, error):
    read = back(encode(CUP_MASK, form, quality=90)).convert("L")

    assert np.percentile(distance(read, CUP_MASK), 99.9) <= error
    assert read.getpixel((0, 0)) <= 1 and read.getpixel((280, 240)) >= 254


@pytest.mark.parametrize(("form", "error"), [(PNG, 0), (WEBP, 0), (AVIF, 6)])
def test_alpha_is_kept(form, error):
    image = cutout(photograph("coffee.png"), CUP_MASK)
    read = back(encode(image, form, quality=80))

    assert read.mode == "RGBA"
    assert np.percentile(distance(read.getchannel("A"), CUP_MASK), 99.9) <= error


@pytest.mark.parametrize("form", [PNG, WEBP, AVIF])
@pytest.mark.parametrize("quality", [50, 100])
def test_a_removed_background_is_in_no_format(form, quality):
    photo = photograph("coffee.png")
    read = np.asarray(back(encode(cutout(photo, CUP_MASK), form, quality=quality)))
    # A lossy format may smear the edge by a block; beyond that, nothing of the wooden table may be visible.
    far = np.asarray(CUP_MASK.filter(ImageFilter.MaxFilter(33))) == 0
    shown, hidden = read[far][:, :3].astype(float), np.asarray(photo)[far].astype(float)

    assert far.sum() > 10_000
    assert shown.std(0).max() < 3
    assert np.abs(np.corrcoef(shown.sum(1) + np.arange(len(shown)) * 1e-9, hidden.sum(1))[0, 1]) < 0.3


def test_webp_of_quality_100_loses_nothing():
    image = photograph("coffee.png")
    assert distance(back(encode(image, WEBP, quality=100)), image).max() == 0


def test_an_avif_edge_is_not_darkened_by_the_cleared_background():
    image = cutout(photograph("coffee.png"), CUP_MASK)
    edge = (np.asarray(CUP_MASK) > 128) & (np.asarray(CUP_MASK) < 250)
    read = np.asarray(back(encode(image, AVIF, quality=90)))[edge][:, :3].astype(int)

    assert (np.asarray(image)[edge][:, :3].astype(int) - read).mean() < 2


def test_jpeg_has_no_transparency():
    with pytest.raises(ValueError, match="composite"):
        encode(Image.new("RGBA", (2, 2)), JPEG)


@pytest.mark.parametrize("form", list(MAX_SIDES))
def test_more_pixels_than_the_format_allows(form):
    with pytest.raises(TooLarge, match=f"--max-side {MAX_SIDES[form]} or another format"):
        encode(Image.new("L", (MAX_SIDES[form] + 1, 1)), form)


def test_png_has_no_such_limit():
    assert back(encode(Image.new("L", (70_000, 1)), PNG)).size == (70_000, 1)


@pytest.mark.parametrize("form", list(ImageFormat))
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_small_pictures(form, mode, size):
    assert back(encode(Image.new(mode, size), form)).size == size


@pytest.mark.parametrize("form", list(ImageFormat))
def test_metadata_that_pillow_keeps_is_not_written(form):
    image = photograph("coffee.png")
    exif = Image.Exif()
    exif[271] = "maker"
    image.info |= {"exif": exif.tobytes(), "icc_profile": SRGB, "dpi": (300, 300), "xmp": b"<x/>", "comment": b"hello"}

    read = back(encode(image, form))

    assert not {"exif", "icc_profile", "dpi", "xmp", "comment"} & set(read.info)
    assert dict(read.getexif()) == {}
