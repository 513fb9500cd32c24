"""Apply EXIF orientation to an image, and to a box in its coordinates.

`ImageOps.exif_transpose` also transposes pixels, but it copies images that are already upright and rewrites EXIF.
"""

from __future__ import annotations

from PIL import Image

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; fractions allowed."""

_TRANSPOSES = {  # Exif 2.32, 4.6.4, tag Orientation; 1 is already upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPED = {5, 6, 7, 8}
_LEFT_BECOMES_RIGHT = {2, 3, 6, 7}  # in the oriented image, after swapping the axes
_TOP_BECOMES_BOTTOM = {3, 4, 7, 8}


def orient(image: Image.Image, orientation: object) -> Image.Image:
    """Return the image as a viewer shows it; `image` itself if it is upright or the value is invalid."""
    method = _TRANSPOSES.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def orient_box(box: Box, size: tuple[int, int], orientation: object) -> Box:
    """Return the position of `box` after `orient`, for an image of `size` (width, height) before it."""
    (left, top, right, bottom), (width, height) = box, size
    if orientation in _SWAPPED:
        left, top, right, bottom, width, height = top, left, bottom, right, height, width
    if orientation in _LEFT_BECOMES_RIGHT:
        left, right = width - right, width - left
    if orientation in _TOP_BECOMES_BOTTOM:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom
