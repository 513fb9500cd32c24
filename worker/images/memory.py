"""Estimate the peak memory of one picture from its header, before any pixel is decoded.

    decode    pixels that the decoder decodes x bytes of its format (+ coefficients of a progressive JPEG, + the file)
    render    pixels that were decoded x 5 + pixels of the output x bytes of its kind and format
    peak      the larger of the two, since the one is over when the other begins

The bytes were measured by `worker bench images --memory` and rounded up; `worker/images/README.md` has the table. A
test measures some of them again.
"""

from __future__ import annotations

from typing import NamedTuple

from worker.contract.outputs import ImageFormat, OutputKind, OutputOptions

DECODE_BYTES = {
    "JPEG": (13, 13),
    "PNG": (10, 22),
    "WEBP": (20, 26),
    "AVIF": (18, 27),
    "HEIC": (18, 25),
    "HEIF": (18, 25),
    "TIFF": (21, 26),
    "GIF": (13, 18),
    "BMP": (12, 20),
}
"""Format -> bytes per pixel while a picture is decoded, turned upright and converted to RGB; those with a matte."""

HELD_BYTES = 5
"""Bytes per pixel of a decoded picture: four for RGB, one for a matte."""

RENDER_BYTES = {
    OutputKind.MASK: {ImageFormat.PNG: 2, ImageFormat.JPEG: 3, ImageFormat.WEBP: 20, ImageFormat.AVIF: 17},
    OutputKind.CUTOUT: {ImageFormat.PNG: 10, ImageFormat.WEBP: 28, ImageFormat.AVIF: 40},
    OutputKind.COMPOSITE: {ImageFormat.PNG: 11, ImageFormat.JPEG: 11, ImageFormat.WEBP: 15, ImageFormat.AVIF: 28},
}
"""Kind and format of an output -> bytes per pixel while it is rendered and encoded, beyond the decoded picture."""

REFINE_BYTES = 8
MATTE_BYTES = 13
"""What a picture with a matte of its own adds to a coloured output."""

MASK_MATTE_BYTES = 6
"""What it adds to a mask."""

_COEFFICIENT_BYTES = 2
_FILE_COPIES = 2
"""The file, and what is left of it when it was taken apart."""


class Header(NamedTuple):
    """What decides over the memory of a picture, known before its pixels are decoded."""

    format: str
    width: int
    height: int
    file_bytes: int
    has_matte: bool = True
    """Whether the pixels may have a matte; False if they have none for certain."""
    scale: int = 1
    """The divisor at which a JPEG is decoded."""
    coefficients: float = 0.0
    """Coefficients per pixel that a decoder keeps: those of a JPEG in several scans."""
    coded_pixels: int = 0
    """Pixels of the coded data, if they are more than those of the header."""
    versions: int = 1
    """How often the picture is decoded, and held, at once."""

    @property
    def pixels(self) -> int:
        """Return width x height."""
        return self.width * self.height


def decode_peak(header: Header) -> int:
    """Return the bytes that decoding takes at its peak."""
    decoded = max(header.pixels // header.scale**2, header.coded_pixels)
    kept = int(header.pixels * header.coefficients * _COEFFICIENT_BYTES)
    whole = decoded * DECODE_BYTES[header.format][header.has_matte] + kept
    return whole * header.versions + _FILE_COPIES * header.file_bytes


def picture_peak(header: Header, options: OutputOptions) -> int:
    """Return the bytes that a picture takes at its peak, from decoding to its last output."""
    held = header.pixels // header.scale**2 * HELD_BYTES
    pixels = header.pixels
    longest = max(header.width, header.height)
    if options.max_side is not None and options.max_side < longest:
        pixels = int(pixels * (options.max_side / longest) ** 2)
    rendered = max(_render_bytes(header, options, kind) for kind in options.outputs)
    return max(decode_peak(header), held + pixels * rendered)


def _render_bytes(header: Header, options: OutputOptions, kind: OutputKind) -> int:
    size = RENDER_BYTES[kind][options.format_of(kind)]
    if kind is OutputKind.MASK:
        return size + header.has_matte * MASK_MATTE_BYTES
    return size + options.refine * REFINE_BYTES + header.has_matte * MATTE_BYTES
