"""PNG files read back by Pillow: exact pixels, the profile, and nothing else."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tests.support.edge_case_images import encoded, scene
from worker.images import png as module
from worker.images.png import write_png

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def back(data):
    """Return the image as Pillow reads it, after verifying every checksum."""
    Image.open(io.BytesIO(data)).verify()
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def chunks(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, names = 8, []
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        assert struct.unpack_from(">I", data, at + 8 + size) == (zlib.crc32(data[at + 4 : at + 8 + size]),)
        names.append(data[at + 4 : at + 8])
        at += 12 + size
    return names


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (120, 160), (700, 900)])
def test_mask_pixels_are_exact(shape):
    image = back(write_png(Image.fromarray(noise(*shape))))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), noise(*shape))


@pytest.mark.parametrize("shape", [(1, 1, 4), (1, 9, 4), (9, 1, 4), (120, 160, 4), (300, 400, 4)])
def test_cutout_pixels_are_exact(shape):
    image = back(write_png(Image.fromarray(noise(*shape))))
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image), noise(*shape))


@pytest.mark.parametrize("band", [1, 7, 160, 1000])
def test_bands_do_not_show(band, monkeypatch):
    whole = write_png(Image.fromarray(noise(50, 40, 4)))
    monkeypatch.setattr(module, "_BAND_BYTES", band)
    assert np.array_equal(np.asarray(back(write_png(Image.fromarray(noise(50, 40, 4))))), noise(50, 40, 4))
    assert np.array_equal(np.asarray(back(write_png(Image.fromarray(noise(50, 40))))), noise(50, 40))
    assert back(whole).size == (40, 50)


@pytest.mark.parametrize("band", [40, 130, 1 << 19])
@pytest.mark.parametrize("shape", [(50, 40), (50, 40, 4)])
def test_images_in_several_blocks_give_the_same_bytes(band, shape, monkeypatch):
    """Their rows are copied; all others are read where they are."""
    monkeypatch.setattr(module, "_BAND_BYTES", band)
    expected = write_png(Image.fromarray(noise(*shape)))
    monkeypatch.setattr(module, "shared_pixels", lambda image: None)

    assert write_png(Image.fromarray(noise(*shape))) == expected


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_size_and_flat_value(width, height, value):
    mask = Image.new("L", (width, height), value)
    assert back(write_png(mask)).tobytes() == mask.tobytes()


def test_profile_is_kept():
    image = back(write_png(scene().convert("RGBA"), SRGB))
    assert image.info["icc_profile"] == SRGB


@pytest.mark.parametrize("icc", [None, b""])
def test_no_profile_no_chunk(icc):
    assert chunks(write_png(scene().convert("RGBA"), icc)) == [b"IHDR", b"IDAT", b"IEND"]


def test_metadata_of_the_image_is_not_written():
    exif = Image.Exif()
    exif[271] = "maker"
    image = Image.open(io.BytesIO(encoded(scene().convert("RGBA"), "PNG", exif=exif.tobytes(), icc_profile=SRGB)))
    image.load()
    image.info["dpi"] = (300, 300)
    assert chunks(write_png(image)) == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks(write_png(image, SRGB)) == [b"IHDR", b"iCCP", b"IDAT", b"IEND"]
    assert chunks(write_png(image.convert("L"))) == [b"IHDR", b"IDAT", b"IEND"]


def test_same_pixels_same_bytes():
    first, second = (write_png(Image.fromarray(noise(64, 64, 4)), SRGB) for _ in range(2))
    assert first == second
    assert write_png(scene().convert("L")) == write_png(scene().convert("L"))


def test_soft_mask_is_smaller_than_pillow_makes_it():
    y, x = np.mgrid[0:600, 0:800]
    distance = np.hypot(x - 400, y - 300)
    mask = Image.fromarray((255 / (1 + np.exp((distance - 180) / 6))).astype(np.uint8))
    assert len(write_png(mask)) < len(encoded(mask, "PNG", compress_level=1))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "CMYK", "I;16"])
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match="mode L, RGB, RGBA"):
        write_png(Image.new(mode, (2, 2)))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (120, 160, 3)])
def test_pixels_without_alpha_are_exact(shape):
    image = back(write_png(Image.fromarray(noise(*shape))))
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), noise(*shape))


def test_exif_is_written_if_given():
    exif = Image.Exif()
    exif[271] = "maker"
    data = write_png(scene(), SRGB, exif.tobytes().removeprefix(b"Exif\0\0"))
    assert chunks(data) == [b"IHDR", b"iCCP", b"eXIf", b"IDAT", b"IEND"]
    assert back(data).getexif()[271] == "maker"
