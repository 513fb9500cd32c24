"""JPEG: one outcome whatever the outputs are, kinds that are refused have names, and the last bytes may be missing."""

import struct

import numpy as np
import pytest

from tests.support.edge_case_images import encoded, scene
from worker.contract.errors import ImageError, Undecodable, UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images.decode import FULL_SIZE, DecodeTarget, decode
from worker.images.jpeg_file import jpeg_facts
from worker.images.png_file import DAMAGED_METADATA, MISSING_END

LIMITS = LimitSettings()
SMALL = DecodeTarget(short_side=4, long_side=4)
# Predictor 1, 8 bits, 16 x 16 pixels: 8 more per row and 7 per column. From imagecodecs' encoder of lossless JPEG.
LOSSLESS = bytes.fromhex(
    "ffd8ffc400160001010100000000000000000000000000030408ffc3000b080010001001001100ffda0008010000060000cf"
    "eeeeeeeeeeeeeeef422222222222222250888888888888889422222222222222250888888888888889422222222222222250"
    "8888888888888894222222222222222508888888888888894222222222222222508888888888888894222222222222222508"
    "8888888888888942222222222222225088888888888888942222222222222220ffd9"
)


def kinds():
    return {
        "baseline": encoded(scene(), "JPEG"),
        "optimised": encoded(scene(), "JPEG", optimize=True),
        "progressive": encoded(scene(), "JPEG", progressive=True),
        "grey": encoded(scene().convert("L"), "JPEG"),
        "cmyk": encoded(scene().convert("CMYK"), "JPEG"),
        "restarts": encoded(scene(), "JPEG", restart_marker_rows=1),
        "fine": encoded(scene(), "JPEG", quality=100, subsampling=0),
    }


def with_frame(marker, precision=8):
    data = bytearray(encoded(scene(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 1], data[at + 4] = marker, precision
    return bytes(data)


@pytest.mark.parametrize("target", [FULL_SIZE, SMALL], ids=["full", "mask only"])
@pytest.mark.parametrize("removed", [1, 2])
@pytest.mark.parametrize("kind", kinds())
def test_without_its_end_marker_a_jpeg_has_the_same_pixels_and_a_note(kind, removed, target):
    data = kinds()[kind]
    picture = decode(data[:-removed], LIMITS, target)
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(decode(data, LIMITS).rgb))
    assert MISSING_END in picture.notes
    assert MISSING_END not in decode(data, LIMITS, target).notes


@pytest.mark.parametrize("target", [FULL_SIZE, SMALL], ids=["full", "mask only"])
@pytest.mark.parametrize("kind", kinds())
def test_with_pixels_missing_a_jpeg_is_refused(kind, target):
    data = kinds()[kind]
    last_scan = data.rindex(b"\xff\xda")
    for end in (len(data) - 40, len(data) - 200, last_scan, last_scan + 14, len(data) // 2):
        with pytest.raises(Undecodable):
            decode(data[:end], LIMITS, target)


def test_a_progressive_jpeg_cut_between_two_scans_is_refused():
    data = kinds()["progressive"]
    cuts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    assert len(cuts) > 5
    for at in cuts[1:]:
        with pytest.raises(Undecodable):
            decode(data[:at], LIMITS)


@pytest.mark.parametrize("target", [FULL_SIZE, SMALL], ids=["full", "mask only"])
def test_a_lossless_jpeg_has_one_outcome_whatever_the_outputs_are(target):
    picture = decode(LOSSLESS, LIMITS, target)
    truth = np.add.outer(np.arange(16) * 8, np.arange(16) * 7)
    assert np.array_equal(np.asarray(picture.rgb)[:, :, 0], truth)
    assert not jpeg_facts(LOSSLESS).is_dct


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_frame(0xF7), "JPEG-LS is not supported"),
        (b"\xff\xd8\xff\xf7" + struct.pack(">HBHHB", 11, 8, 9, 9, 1) + bytes(40), "JPEG-LS is not supported"),
        (with_frame(0xCB), "lossless JPEG with arithmetic coding"),
        (with_frame(0xC5), "hierarchical JPEG"),
        (with_frame(0xC1, 12), "12 bits per channel"),
        (with_frame(0xC3, 16), "16 bits per channel"),
    ],
)
@pytest.mark.parametrize("target", [FULL_SIZE, SMALL], ids=["full", "mask only"])
def test_kinds_that_are_not_supported_are_named(data, words, target):
    with pytest.raises(UnsupportedFormat, match=words):
        decode(data, LIMITS, target)


SEGMENTS = {
    "Photoshop cut off": (0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04", False),
    "Photoshop with nonsense": (0xED, b"Photoshop 3.0\0" + b"8BIM" * 50, False),
    "short JFIF": (0xE0, b"JFIF\0", True),
    "short Adobe": (0xEE, b"Adobe\0", True),
    "short profile": (0xE2, b"ICC_PROFILE\0", True),
    "part 0 of 0 of a profile": (0xE2, b"ICC_PROFILE\0\0\0", False),
    "list of pictures": (0xE2, b"MPF\0II*\0\x08\0\0\0\x01\0\x01\xb0\x04\0\x01\0\0\0\xff\xff\xff\xff", False),
    "empty comment": (0xFE, b"", False),
    "unknown": (0xEF, b"anything", False),
}


@pytest.mark.parametrize("target", [FULL_SIZE, SMALL], ids=["full", "mask only"])
@pytest.mark.parametrize("name", SEGMENTS)
def test_metadata_decides_over_no_pixel(name, target):
    marker, body, is_noted = SEGMENTS[name]
    data = encoded(scene(), "JPEG")
    segment = bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
    picture = decode(data[:2] + segment + data[2:], LIMITS, target)
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(decode(data, LIMITS, target).rgb))
    assert (picture.notes == (DAMAGED_METADATA,)) == is_noted


@pytest.mark.parametrize("end", range(2, 700, 23))
def test_a_header_that_is_cut_off_is_an_error_of_the_image(end):
    with pytest.raises(ImageError):
        decode(encoded(scene(), "JPEG")[:end], LIMITS)
