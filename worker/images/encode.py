"""Pictures to PNG bytes: the last step before an output is stored.

The PNG is written here rather than by Pillow, whose writer tries all five filters on every row and spends more on that
than on compressing. One fixed filter and run-length matching cost about half the CPU: a mask gets smaller than at
zlib's default level, a cut-out about as large as at level 1. Higher levels cost a multiple of the CPU for a few per
cent of size. Rows go through in bands, so memory beyond the image and the result stays small whatever the size.

The same pixels give the same bytes (for one zlib). Written are pixels and, for a cut-out, the ICC profile; no EXIF, no
XMP, no GPS position, no date.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

_Bytes = npt.NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGBA = 0, 6  # colour types: PNG specification (third edition), 11.2.1
_UP, _AVERAGE = 2, 3  # filter types: section 9.2
_LEVEL = 1
_WINDOW_BITS = 15
_MEMORY_LEVEL = 9
_BAND_BYTES = 1 << 18
"""Rows are filtered this many bytes at a time, so that the arrays of a band stay in a core's cache."""


def encode_mask(mask: Image.Image) -> bytes:
    """8-bit grey PNG of a mask (mode L).

    Raises:
        ValueError: another mode.
    """
    _expect(mask, "L")
    # A mask is smooth and mostly flat: the difference to the row above is nearly always 0, in long runs.
    return _png(mask, _GREY, _UP, _minus_above)


def encode_cutout(image: Image.Image, icc: bytes | None) -> bytes:
    """8-bit RGBA PNG of a cut-out, with the ICC profile of its colours if it has one.

    Raises:
        ValueError: another mode.
    """
    _expect(image, "RGBA")
    # Photographs: the mean of left and above predicts better than either alone, and far cheaper than Paeth.
    return _png(image, _RGBA, _AVERAGE, _minus_average, icc)


def _expect(image: Image.Image, mode: str) -> None:
    if image.mode != mode:
        raise ValueError(f"expected an image of mode {mode}, not {image.mode}; convert it first")


def _png(
    image: Image.Image,
    colour_type: int,
    filter_type: int,
    predict: Callable[[_Bytes, _Bytes, _Bytes], None],
    icc: bytes | None = None,
) -> bytes:
    """PNG signature and chunks: specification, sections 5 and 11."""
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, colour_type, 0, 0, 0)
    parts = [_SIGNATURE, _chunk(b"IHDR", header)]
    if icc:
        parts.append(_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc)))
    parts += [_chunk(b"IDAT", _compressed(image, filter_type, predict)), _chunk(b"IEND", b"")]
    return b"".join(parts)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return b"".join((struct.pack(">I", len(body)), kind, body, struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))))


def _compressed(image: Image.Image, filter_type: int, predict: Callable[[_Bytes, _Bytes, _Bytes], None]) -> bytes:
    """All rows, filtered and deflated."""
    depth = len(image.getbands())
    row = image.width * depth
    step = max(1, _BAND_BYTES // row)
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_RLE)
    parts = []
    last = np.zeros((1, image.width, depth), np.uint8)
    for top in range(0, image.height, step):
        band = image.crop((0, top, image.width, min(image.height, top + step)))
        rows = np.asarray(band).reshape(-1, image.width, depth)
        above = np.concatenate((last, rows[:-1]))
        out = np.empty((len(rows), row + 1), np.uint8)
        out[:, 0] = filter_type
        predict(rows, above, out[:, 1:].reshape(rows.shape))
        parts.append(packer.compress(out.data))
        last = rows[-1:]
    parts.append(packer.flush())
    return b"".join(parts)


def _minus_above(rows: _Bytes, above: _Bytes, out: _Bytes) -> None:
    np.subtract(rows, above, out=out)


def _minus_average(rows: _Bytes, above: _Bytes, out: _Bytes) -> None:
    left = np.zeros_like(rows)
    left[:, 1:] = rows[:, :-1]
    # (a + b) // 2 in 8 bits, without the carry: the bits they share, and half of those in which they differ.
    np.subtract(rows, (left & above) + ((left ^ above) >> 1), out=out)
