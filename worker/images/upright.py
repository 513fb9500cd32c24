"""Turning a picture the way its EXIF orientation says, and the part of it that holds the picture along with it.

`ImageOps.exif_transpose` turns pixels too, but copies upright images and rewrites EXIF.
"""

from __future__ import annotations

from PIL import Image

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; fractions allowed."""

_Turn = Image.Transpose

_TURNS = {  # Exif 2.32, 4.6.4, tag Orientation; 1 is upright already
    2: _Turn.FLIP_LEFT_RIGHT,
    3: _Turn.ROTATE_180,
    4: _Turn.FLIP_TOP_BOTTOM,
    5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270,
    7: _Turn.TRANSVERSE,
    8: _Turn.ROTATE_90,
}
_SWAPPED = {5, 6, 7, 8}
_LEFT_BECOMES_RIGHT = {2, 3, 6, 7}  # of the turned picture, after any swap of the axes
_TOP_BECOMES_BOTTOM = {3, 4, 7, 8}


def turned(image: Image.Image, orientation: object) -> Image.Image:
    """As a viewer shows it; `image` itself where nothing is to be done, also for values that mean nothing."""
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def turned_box(box: Box, size: tuple[int, int], orientation: object) -> Box:
    """Where `box` of an image of `size` (w, h) lies after `turned`."""
    (left, top, right, bottom), (width, height) = box, size
    if orientation in _SWAPPED:
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in _LEFT_BECOMES_RIGHT:
        left, right = width - right, width - left
    if orientation in _TOP_BECOMES_BOTTOM:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
