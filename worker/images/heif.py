"""Read HEIC and HEIF through the extra `heif`: its opener, and the one kind of damage that it does not report.

libheif turns a picture by its own boxes (irot, imir) when it opens it. EXIF and XMP do not turn it: the format says so.

Telephones store a grid of tiles. Where the coded data of a tile is missing or ends early, libheif shows a flat area and
no error (seen with libheif 1.23). Its colour is that of zeros in all of Y, Cb and Cr: red and blue 0, and a green that
depends on the matrix (77 to 136).
"""

from __future__ import annotations

import functools
import importlib
import io
import struct
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from worker.contract import extras
from worker.contract.errors import Undecodable, UnsupportedFormat
from worker.images.colour_space import boxes, properties

_LEAST_GREEN, _MOST_GREEN = 70, 140
_MAX_TILES = 16
"""Tile sizes that are looked at. A file has one, and one per thumbnail."""


def open_heif(name: str, data: bytes) -> ImageFile.ImageFile:
    """Open a HEIC or HEIF without decoding its pixels.

    Raises:
        UnsupportedFormat: the extra is not installed.
        Any of `decode.PILLOW_ERRORS`: the container is malformed.
    """
    if reason := extras.missing("heif", name):
        raise UnsupportedFormat(f"{name} is not supported here; {reason}; or convert it to JPEG, PNG, WebP or AVIF")
    return cast(ImageFile.ImageFile, _opener()(io.BytesIO(data)))


@functools.cache
def _opener() -> Any:
    """Import the library; it decodes in the calling thread, since each process has a fixed share of the cores."""
    pi_heif: Any = importlib.import_module("pi_heif")
    vars(pi_heif.options).update(DECODE_THREADS=1)
    return pi_heif.HeifImageFile


def check_tiles(data: bytes, image: Image.Image) -> None:
    """Refuse a grid with a tile that could not be decoded.

    Args:
        data: the file.
        image: decoded, mode RGB or RGBA, as `open_heif` shows it.

    Raises:
        Undecodable: a whole tile has one colour, the one of missing data.
    """
    sizes = _tile_sizes(data)
    if not sizes or image.mode not in ("RGB", "RGBA"):
        return
    pixels = np.asarray(image)
    green = pixels[:, :, 1]
    suspect = (pixels[:, :, 0] == 0) & (pixels[:, :, 2] == 0) & (green >= _LEAST_GREEN) & (green <= _MOST_GREEN)
    if not suspect.any():
        return
    for width, height in sizes:
        # The picture may have been turned, so the tiles may begin at any corner and lie on their side.
        for down, across in {(height, width), (width, height)}:
            for view in (suspect, suspect[::-1], suspect[:, ::-1], suspect[::-1, ::-1]):
                if _has_full_cell(view, down, across):
                    raise Undecodable("HEIC with a tile that cannot be decoded; export or upload it again")


def _has_full_cell(marked: npt.NDArray[np.bool_], down: int, across: int) -> bool:
    """Return whether a cell of this height and width, from the top left corner on, is marked all over."""
    rows = np.logical_and.reduceat(marked, np.arange(0, marked.shape[0], down), axis=0)
    return bool(np.logical_and.reduceat(rows, np.arange(0, marked.shape[1], across), axis=1).any())


def _tile_sizes(data: bytes) -> set[tuple[int, int]]:
    """Return width and height of all items of a file that holds a grid, its tiles among them; empty without a grid."""
    found: set[tuple[int, int]] = set()
    for kind, meta in boxes(data):
        if kind != b"meta" or not any(inner == b"iinf" and b"grid" in body for inner, body in boxes(meta[4:])):
            continue
        for name, body in properties(meta[4:]):
            if name == b"ispe" and len(body) >= 12 and len(found) < _MAX_TILES:  # noqa: PLR2004 - version, two numbers
                width, height = struct.unpack_from(">II", body, 4)
                found |= {(width, height)} if width and height else set()
    return found
