"""Resize images with SIMD code: Pillow's resize is scalar and took a third of the time spent on pixels.

The filter is the same as Pillow's bilinear one, a triangle that widens when scaling down to avoid aliasing. Its
coefficients have fewer bits, so a value may differ from Pillow's by 1 of 255.
"""

from __future__ import annotations

from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from worker.images.upright import Box

_BILINEAR = ResizeAlg.convolution(FilterType.bilinear)
_QUARTERS = 4


def bilinear(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """Resize an image, or a part of it.

    Args:
        image: mode L or RGB.
        size: width and height of the result, at least 1.
        box: left, top, right, bottom of the part in pixels, fractions allowed; inside the image. None: the whole image.

    Returns:
        A new image of the same mode.

    Raises:
        ValueError: the image has another mode.
    """
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"expected an image of mode L or RGB, not {image.mode}; convert it first")
    left, top, right, bottom = box or (0.0, 0.0, *image.size)
    if size[1] > bottom - top:
        # The library resizes vertically first. When enlarging, its horizontal pass then has to process all rows of the
        # result, nearly twice the work; so resize horizontally here first.
        across = _across_in_fours if image.mode == "L" else _across
        image = across(image, size[0], left, right)
        left, right = 0.0, float(size[0])
    return _resized(image, size, (left, top, right, bottom))


def _across(image: Image.Image, width: int, left: float, right: float) -> Image.Image:
    """Resize the part from `left` to `right` horizontally, in all rows."""
    return _resized(image, (width, image.height), (left, 0.0, right, float(image.height)))


def _across_in_fours(image: Image.Image, width: int, left: float, right: float) -> Image.Image:
    """Do what `_across` does for an image of mode L, in half the time and with the same result.

    The library's horizontal pass takes as long for a pixel of one channel as for one of four. So the four quarters of
    the rows become the channels of one image, CMYK because the library computes its channels independently.
    """
    quarter = -(-image.height // _QUARTERS)
    parts = [image.crop((0, top, image.width, top + quarter)) for top in range(0, quarter * _QUARTERS, quarter)]
    wide = _across(Image.merge("CMYK", parts), width, left, right)
    resized = Image.new("L", (width, image.height))
    for number in range(_QUARTERS):
        resized.paste(wide.getchannel(number), (0, number * quarter))  # what exceeds the image is cut off
    return resized


def _resized(image: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
    left, top, right, bottom = box
    resized = Image.new(image.mode, size)
    options = ResizeOptions(resize_alg=_BILINEAR, crop_box=CropBox(left, top, right - left, bottom - top))
    Resizer().resize_pil(image, resized, options)
    return resized
