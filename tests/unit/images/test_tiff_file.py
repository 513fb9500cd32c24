"""TIFF files that Pillow or libtiff reads wrong are refused in words; their readable siblings keep their pixels."""

from __future__ import annotations

import numpy as np
import pytest

from support.picture_files import base
from support.picture_files.tiff import Tags, compressed, tiff
from worker.contract.errors import UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images.decode import decode

LIMITS = LimitSettings()
HEIGHT, WIDTH = 8, 16
NUMBERS = {"none": 1, "LZW": 5}


def ycbcr(factors: tuple[int, int], compression: str, tags: Tags | None = None) -> bytes:
    """Return a grey picture stored as YCbCr, whose colours are shared by blocks of `factors` pixels."""
    right, down = factors
    block = bytes([200] * (right * down) + [128, 128])
    rows = [block * (WIDTH // right)] * (HEIGHT // down)
    known: Tags = {
        256: ("I", [WIDTH]),
        257: ("I", [HEIGHT]),
        258: ("H", [8, 8, 8]),
        259: ("H", [NUMBERS[compression]]),
        262: ("H", [6]),
        277: ("H", [3]),
        278: ("I", [HEIGHT]),
        530: ("H", factors),
        34675: ("B", base.SRGB_PROFILE),  # bytes behind the pixels, for a reader that wants more of them
    }
    return tiff("<", [compressed(rows, compression)], known | (tags or {}))


def grey_of(data: bytes) -> int:
    """Return the only level of a picture."""
    levels = np.unique(np.asarray(decode(data, LIMITS).rgb))
    assert len(levels) == 1
    return int(levels[0])


@pytest.mark.parametrize("factors", [(2, 1), (2, 2), (4, 2)])
def test_colours_shared_by_blocks_of_pixels(factors):
    """Uncompressed, Pillow takes each three bytes for a pixel, and what follows in the file for the missing ones."""
    assert grey_of(ycbcr(factors, "LZW")) == 200
    with pytest.raises(UnsupportedFormat, match=f"one colour for {factors[0]} x {factors[1]} pixels"):
        decode(ycbcr(factors, "none"), LIMITS)


def test_two_by_two_pixels_are_the_default_of_a_block():
    with pytest.raises(UnsupportedFormat, match="one colour for 2 x 2 pixels"):
        decode(ycbcr((2, 2), "none", {530: ("H", [])}), LIMITS)


def test_blocks_of_four_by_four_are_refused():
    """Those of libtiff 4.7 are mixed up in the corner, if the picture ends within it."""
    with pytest.raises(UnsupportedFormat, match="one colour for 4 x 4 pixels"):
        decode(ycbcr((4, 4), "LZW"), LIMITS)


def test_black_and_white_of_video():
    """Levels from 16 to 235: libtiff spreads them, Pillow does not."""
    video: Tags = {532: ("R", [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1])}
    full: Tags = {532: ("R", [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1])}

    assert grey_of(ycbcr((1, 1), "none")) == grey_of(ycbcr((1, 1), "none", full)) == 200
    assert abs(grey_of(ycbcr((1, 1), "LZW", video)) - round((200 - 16) * 255 / 219)) <= 1
    with pytest.raises(UnsupportedFormat, match="this kind of YCbCr"):
        decode(ycbcr((1, 1), "none", video), LIMITS)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [8, 16])
def test_signed_values_have_no_agreed_white(bits, photometric):
    """Pillow takes those of 8 bits for unsigned: what is darker than 0 became lighter than all else."""
    levels = base.noise(np.random.default_rng(1), (HEIGHT, WIDTH), 1, (1 << bits) - 1)
    tags: Tags = {
        256: ("I", [WIDTH]),
        257: ("I", [HEIGHT]),
        258: ("H", [bits]),
        262: ("H", [photometric]),
        339: ("H", [2]),
    }

    with pytest.raises(UnsupportedFormat, match=r"signed values of a TIFF .* have no agreed white"):
        decode(tiff("<", [b"".join(base.packed_rows(levels, bits, "<"))], tags), LIMITS)


def test_reversed_bits_of_a_palette_are_refused_in_the_right_words():
    tags: Tags = {
        256: ("I", [WIDTH]),
        257: ("I", [HEIGHT]),
        258: ("H", [1]),
        262: ("H", [3]),
        266: ("H", [2]),
        320: ("H", [0, 65535] * 3),
    }

    with pytest.raises(UnsupportedFormat, match="this kind of TIFF is not supported"):
        decode(tiff("<", [bytes(WIDTH * HEIGHT // 8)], tags), LIMITS)
