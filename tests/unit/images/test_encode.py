"""PNG bytes read back by Pillow: exact pixels, the profile, and nothing else."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from tests.support.awkward import encoded, scene
from worker.images import encode as module
from worker.images.encode import encode_cutout, encode_mask

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


def back(data):
    """The image as Pillow reads it, after checking every checksum."""
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
    image = back(encode_mask(Image.fromarray(noise(*shape))))
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), noise(*shape))


@pytest.mark.parametrize("shape", [(1, 1, 4), (1, 9, 4), (9, 1, 4), (120, 160, 4), (300, 400, 4)])
def test_cutout_pixels_are_exact(shape):
    image = back(encode_cutout(Image.fromarray(noise(*shape)), None))
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image), noise(*shape))


@pytest.mark.parametrize("band", [1, 7, 160, 1000])
def test_bands_do_not_show(band, monkeypatch):
    whole = encode_cutout(Image.fromarray(noise(50, 40, 4)), None)
    monkeypatch.setattr(module, "_BAND_BYTES", band)
    assert np.array_equal(np.asarray(back(encode_cutout(Image.fromarray(noise(50, 40, 4)), None))), noise(50, 40, 4))
    assert np.array_equal(np.asarray(back(encode_mask(Image.fromarray(noise(50, 40))))), noise(50, 40))
    assert back(whole).size == (40, 50)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_size_and_flat_value(width, height, value):
    mask = Image.new("L", (width, height), value)
    assert back(encode_mask(mask)).tobytes() == mask.tobytes()


def test_profile_is_kept():
    image = back(encode_cutout(scene().convert("RGBA"), SRGB))
    assert image.info["icc_profile"] == SRGB


@pytest.mark.parametrize("icc", [None, b""])
def test_no_profile_no_chunk(icc):
    assert chunks(encode_cutout(scene().convert("RGBA"), icc)) == [b"IHDR", b"IDAT", b"IEND"]


def test_metadata_of_the_image_is_not_written():
    exif = Image.Exif()
    exif[271] = "maker"
    image = Image.open(io.BytesIO(encoded(scene().convert("RGBA"), "PNG", exif=exif.tobytes(), icc_profile=SRGB)))
    image.load()
    image.info["dpi"] = (300, 300)
    assert chunks(encode_cutout(image, None)) == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks(encode_cutout(image, SRGB)) == [b"IHDR", b"iCCP", b"IDAT", b"IEND"]
    assert chunks(encode_mask(image.convert("L"))) == [b"IHDR", b"IDAT", b"IEND"]


def test_same_pixels_same_bytes():
    first, second = (encode_cutout(Image.fromarray(noise(64, 64, 4)), SRGB) for _ in range(2))
    assert first == second
    assert encode_mask(scene().convert("L")) == encode_mask(scene().convert("L"))


def test_soft_mask_is_smaller_than_pillow_makes_it():
    y, x = np.mgrid[0:600, 0:800]
    distance = np.hypot(x - 400, y - 300)
    mask = Image.fromarray((255 / (1 + np.exp((distance - 180) / 6))).astype(np.uint8))
    assert len(encode_mask(mask)) < len(encoded(mask, "PNG", compress_level=1))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1"])
def test_mask_of_another_mode_is_refused(mode):
    with pytest.raises(ValueError, match="mode L"):
        encode_mask(Image.new(mode, (2, 2)))


def test_cutout_of_another_mode_is_refused():
    with pytest.raises(ValueError, match="mode RGBA"):
        encode_cutout(Image.new("RGB", (2, 2)), None)
