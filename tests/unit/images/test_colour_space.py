"""Colour spaces that a file names without an ICC profile reach the outputs as one, or a note says that they do not."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support.edge_case_images import encoded, scene
from worker.contract.outputs import OutputKind, OutputOptions
from worker.contract.settings import LimitSettings
from worker.images.colour_space import avif_colours, from_cicp, from_gamma, rgb_profile
from worker.images.decode import decode
from worker.images.render import render

LIMITS = LimitSettings()
SRGB = ImageCms.createProfile("sRGB")
BASE = encoded(scene(), "PNG")
BT709 = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329)
BT2020_PQ, DISPLAY_P3, SRGB_CICP = bytes((9, 16, 0, 1)), bytes((12, 13, 0, 1)), bytes((1, 13, 0, 1))
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255] * 3, [128] * 3, [90, 120, 200]]], np.uint8)


def with_chunks(*chunks):
    added = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return BASE[:33] + added + BASE[33:]


def gamma(value):
    return b"gAMA", struct.pack(">I", value)


def primaries(*values):
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


def in_srgb(profile, values=COLOURS):
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(Image.fromarray(values), source, SRGB, renderingIntent=1, outputMode="RGB")
    return np.asarray(converted).astype(int)


def srgb_to_linear(values):
    v = values / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def test_the_profile_of_srgb_changes_nothing():
    assert np.abs(in_srgb(rgb_profile(BT709, None)) - COLOURS).max() <= 1


def test_a_gamma_is_the_exponent_of_the_light():
    linear = in_srgb(rgb_profile(BT709, 1.0))
    assert np.abs(srgb_to_linear(linear) - COLOURS / 255).max() < 0.01
    assert abs(linear[0, 4, 0] - 188) <= 1  # half of the light is 188 in sRGB (IEC 61966-2-1)


def test_display_p3_is_wider_than_srgb():
    # Matrix from linear Display P3 to linear sRGB, as CSS Color 4 (section 18) gives it, for one colour inside both.
    inside = np.array([[[160, 130, 110]]], np.uint8)
    matrix = np.array([[1.2249401, -0.2249404, 0.0], [-0.0420569, 1.0420571, 0.0], [-0.0196376, -0.0786361, 1.0982735]])
    found = srgb_to_linear(in_srgb(from_cicp(DISPLAY_P3).icc_profile, inside))[0, 0]
    assert np.abs(found - matrix @ srgb_to_linear(inside[0, 0])).max() < 0.004


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"cICP", SRGB_CICP)],
        [(b"cICP", SRGB_CICP), gamma(100_000)],  # cICP comes first, then sRGB
        [(b"sRGB", b"\0"), gamma(100_000)],
        [gamma(45_455), primaries(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)],
        [gamma(45_455)],
        [primaries(0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)],
    ],
)
def test_srgb_in_any_words_needs_no_profile(chunks):
    picture = decode(with_chunks(*chunks), LIMITS)
    assert (picture.icc_profile, picture.notes) == (None, ())


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"cICP", DISPLAY_P3)],
        [gamma(100_000)],
        [primaries(0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)],
        [(b"iCCP", b"x\0\0" + zlib.compress(ImageCms.ImageCmsProfile(SRGB).tobytes())), (b"cICP", DISPLAY_P3)],
    ],
)
def test_other_colours_get_a_profile_that_outputs_carry(chunks):
    picture = decode(with_chunks(*chunks), LIMITS)
    assert picture.notes == ()
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(scene()))
    assert np.abs(in_srgb(picture.icc_profile) - COLOURS).max() > 5
    mask = np.full((64, 64), 255, np.uint8)
    options = OutputOptions(outputs=(OutputKind.CUTOUT,))
    cutout = dict(render(picture, mask, options)[1])[OutputKind.CUTOUT]
    assert Image.open(io.BytesIO(cutout)).info["icc_profile"] == picture.icc_profile


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([(b"cICP", BT2020_PQ)], r"HDR colours \(BT.2020, PQ\) are not converted"),
        ([(b"cICP", bytes((9, 18, 0, 1)))], r"BT.2020, HLG"),
        ([(b"cICP", bytes((77, 13, 0, 1)))], "unknown kind"),
        ([gamma(1)], "gamma that cannot be meant"),
        ([gamma(2**32 - 1)], "gamma that cannot be meant"),
        ([primaries(*[0] * 8)], "primaries that cannot be meant"),
        ([primaries(*[0.33] * 8)], "primaries that cannot be meant"),
        ([primaries(*[40_000] * 8)], "primaries that cannot be meant"),
    ],
)
def test_what_no_profile_can_say_gets_a_note(chunks, words):
    picture = decode(with_chunks(*chunks), LIMITS)
    assert picture.icc_profile is None
    assert re.search(words, "".join(picture.notes))


AVIF = encoded(scene((32, 24)), "AVIF", max_threads=1)


def avif(primaries_number, transfer):
    data = bytearray(AVIF)
    at = data.index(b"nclx")
    data[at + 4 : at + 8] = struct.pack(">HH", primaries_number, transfer)
    return bytes(data)


def test_colours_that_an_avif_names():
    assert decode(avif(1, 13), LIMITS).icc_profile is None
    wide = decode(avif(12, 13), LIMITS)
    assert (wide.icc_profile, wide.notes) == (from_cicp(DISPLAY_P3).icc_profile, ())
    hdr = decode(avif(9, 16), LIMITS)
    assert hdr.icc_profile is None
    assert "HDR" in hdr.notes[0]
    named = encoded(scene(), "AVIF", max_threads=1, icc_profile=ImageCms.ImageCmsProfile(SRGB).tobytes())
    assert decode(named, LIMITS).icc_profile == ImageCms.ImageCmsProfile(SRGB).tobytes()


def test_boxes_that_are_cut_off_say_nothing():
    data = avif(12, 13)
    assert avif_colours(data) is not None
    for end in range(data.index(b"mdat") - 4):
        assert avif_colours(data[:end]) is None


def test_numbers_that_are_not_there_say_nothing():
    assert from_cicp(b"") is None and from_cicp(b"\x0c") is None
    assert from_gamma(b"", b"") is None
