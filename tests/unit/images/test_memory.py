"""The estimate of the memory that a picture takes, from its header."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.support.edge_case_images import encoded, scene
from worker.contract.outputs import ImageFormat, OutputKind, OutputOptions
from worker.contract.settings import LimitSettings
from worker.images.decode import FULL_SIZE, DecodeTarget, decode
from worker.images.headers import _READABLE
from worker.images.memory import DECODE_BYTES, RENDER_BYTES, Header, decode_peak, picture_peak

LIMITS = LimitSettings()
MASK = OutputOptions()
CUTOUT = OutputOptions(outputs="cutout")


def header_of(data: bytes, target: DecodeTarget = FULL_SIZE) -> Header:
    found: list[Header] = []
    decode(data, LIMITS, target, found.append)
    return found[0]


def test_every_format_and_output_has_a_figure():
    assert {name for _, name in _READABLE} | {"WEBP", "AVIF", "HEIC", "HEIF", "BMP"} == set(DECODE_BYTES)
    assert set(RENDER_BYTES) == set(OutputKind)
    for kind in OutputKind:
        assert set(ImageFormat) - set(RENDER_BYTES[kind]) == (
            {ImageFormat.JPEG} if kind is OutputKind.CUTOUT else set()
        )


def test_a_header_says_what_the_memory_depends_on():
    rgba = scene()
    rgba.putalpha(rgba.convert("L"))
    assert not header_of(encoded(scene(), "PNG")).has_matte
    assert header_of(encoded(rgba, "PNG")).has_matte
    assert header_of(encoded(scene(), "PNG", transparency=(1, 2, 3))).has_matte
    assert header_of(encoded(scene(), "JPEG")).coefficients == 0
    assert header_of(encoded(scene(), "JPEG", progressive=True)).coefficients == 1.5
    assert header_of(encoded(scene(), "JPEG", progressive=True, subsampling=0)).coefficients == 3
    assert header_of(encoded(scene().convert("CMYK"), "JPEG", progressive=True)).coefficients == 4
    assert header_of(encoded(scene(), "JPEG"), DecodeTarget(20, 20)).scale == 4
    assert header_of(encoded(scene(), "JPEG")[:-2]).versions == 3
    assert header_of(encoded(scene(), "AVIF", max_threads=1)).coded_pixels == 160 * 120


def test_the_header_comes_before_the_pixels():
    """What the caller raises ends the decoding."""

    def refuse(header: Header) -> None:
        raise ZeroDivisionError

    broken = encoded(Image.new("RGB", (400, 400)), "PNG")
    with pytest.raises(ZeroDivisionError):
        decode(broken, LIMITS, FULL_SIZE, refuse)


def test_the_estimate_follows_pixels_scale_and_outputs():
    plain = Header("JPEG", 1000, 1000, 0, has_matte=False)
    assert decode_peak(plain._replace(scale=4)) * 16 == decode_peak(plain)
    assert decode_peak(plain._replace(versions=3)) == 3 * decode_peak(plain)
    assert decode_peak(plain._replace(coefficients=3)) == decode_peak(plain) + 6_000_000
    assert decode_peak(plain._replace(coded_pixels=2_000_000)) == 2 * decode_peak(plain)
    assert decode_peak(plain._replace(file_bytes=100)) == decode_peak(plain) + 200

    assert picture_peak(plain._replace(scale=4), MASK) < picture_peak(plain, MASK) < picture_peak(plain, CUTOUT)
    assert picture_peak(plain, CUTOUT) < picture_peak(plain, OutputOptions(outputs="cutout", refine=True))
    assert picture_peak(plain, CUTOUT) < picture_peak(plain._replace(has_matte=True), CUTOUT)
    small = OutputOptions(outputs="cutout", format="avif", max_side=100)
    assert picture_peak(plain, small) < picture_peak(plain, OutputOptions(outputs="cutout", format="avif"))
    both = OutputOptions(outputs=["mask", "cutout"])
    assert picture_peak(plain, both) == picture_peak(plain, CUTOUT)  # one after the other
