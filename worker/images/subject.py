"""A picture and the network's answer to the subject as every output shows it: where it is cut, how large, how opaque.

Cropping and scaling happen once, on the way from the network's square to the size of the outputs: a matte is never
made larger than it is written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from worker.contract.outputs import OutputKind, OutputOptions
from worker.images.decode import Picture, Wanted
from worker.images.quality import SUBJECT
from worker.images.resize import bilinear
from worker.images.upright import Box

_OPAQUE = 255


@dataclass(frozen=True)
class Frame:
    """Which part of a picture an output shows, and how large.

    Attributes:
        box: left, top, right, bottom in pixels of the picture.
        size: of the outputs, width and height.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]


def wanted(options: OutputOptions, network_size: int) -> Wanted:
    """How much of a picture is needed: all its pixels only where an output shows them in full."""
    shown = {OutputKind.CUTOUT, OutputKind.COMPOSITE} & set(options.outputs)
    if not shown:
        return Wanted(short=network_size, long=network_size, exif=options.exif)
    if options.max_side is None or options.crop:  # the size of a crop is not known before there is a mask
        return Wanted(exif=options.exif)
    return Wanted(short=network_size, long=max(network_size, options.max_side), exif=options.exif)


def small_matte(picture: Picture, mask: npt.NDArray[np.uint8]) -> Image.Image:
    """The network's mask u8 [h, w] times the input's own alpha, at the network's size, mode L."""
    small = Image.fromarray(mask)
    if picture.alpha is None:
        return small
    return ImageChops.multiply(small, bilinear(picture.alpha, small.size))


def frame(size: tuple[int, int], matte: Image.Image, options: OutputOptions) -> Frame:
    """What the outputs of a picture of `size` show, given its small matte.

    An empty matte is not cropped to.
    """
    box = (0, 0, *size)
    if options.crop:
        least = SUBJECT if options.threshold is None else _level(options.threshold)
        box = _subject_box(size, matte, least, options.crop_margin) or box
    width, height = box[2] - box[0], box[3] - box[1]
    shrink = min(1.0, (options.max_side or max(width, height)) / max(width, height))
    return Frame(box, (max(1, round(width * shrink)), max(1, round(height * shrink))))


def _subject_box(
    size: tuple[int, int], matte: Image.Image, least: int, margin: str
) -> tuple[int, int, int, int] | None:
    """Around all that is at least so opaque, and one pixel of the small matte more, since the resize spreads it."""
    found = matte.point(_step(least)).getbbox()
    if found is None:
        return None
    across, down = size[0] / matte.width, size[1] / matte.height
    left, top = (found[0] - 1) * across, (found[1] - 1) * down
    right, bottom = (found[2] + 1) * across, (found[3] + 1) * down
    extra = float(margin.rstrip("px%"))
    if margin.endswith("%"):
        extra *= max(right - left, bottom - top) / 100
    return (
        max(0, math.floor(left - extra)),
        max(0, math.floor(top - extra)),
        min(size[0], math.ceil(right + extra)),
        min(size[1], math.ceil(bottom + extra)),
    )


def alpha(picture: Picture, mask: npt.NDArray[np.uint8], shown: Frame, options: OutputOptions) -> Image.Image:
    """Opacity of the subject: mask times the input's own alpha, since what was see-through is no subject.

    Args:
        picture: as decoded.
        mask: the network's answer, u8 [h, w].
        shown: part and size.
        options: for the threshold.

    Returns:
        Image of mode L.
    """
    height, width = mask.shape
    across, down = width / picture.width, height / picture.height
    left, top, right, bottom = shown.box
    box = (left * across, top * down, right * across, bottom * down)
    matte = bilinear(Image.fromarray(mask), shown.size, _inside(box, (width, height)))
    if picture.alpha is not None:
        matte = ImageChops.multiply(matte, _cut(picture.alpha, shown, shown.box))
    if options.threshold is not None:
        matte = matte.point(_step(_level(options.threshold)))
    return matte


def _level(threshold: float) -> int:
    """Smallest grey level that is at least so opaque."""
    return max(1, math.ceil(threshold * _OPAQUE))


def _step(least: int) -> list[int]:
    return [0] * least + [_OPAQUE] * (_OPAQUE + 1 - least)


def colours(picture: Picture, shown: Frame) -> Image.Image:
    """The part of the picture that is shown, at its size, mode RGB."""
    across, down = 1.0, 1.0
    start = (0.0, 0.0)
    if picture.box is not None:
        across = (picture.box[2] - picture.box[0]) / picture.width
        down = (picture.box[3] - picture.box[1]) / picture.height
        start = picture.box[:2]
    left, top, right, bottom = shown.box
    box = (
        start[0] + left * across,
        start[1] + top * down,
        start[0] + right * across,
        start[1] + bottom * down,
    )
    if picture.alpha is None:
        return _cut(picture.rgb, shown, box)
    if shown.size == (right - left, bottom - top):
        return picture.rgb.crop(shown.box)
    # Colours under transparency mean nothing and must not bleed into the edge: Pillow resizes RGBA premultiplied.
    whole = picture.rgb.crop(shown.box)
    whole.putalpha(picture.alpha.crop(shown.box))
    return whole.resize(shown.size, Image.Resampling.LANCZOS).convert("RGB")


def _cut(image: Image.Image, shown: Frame, box: Box) -> Image.Image:
    """`box` of an image at the size of the outputs; the image itself where that is all of it."""
    left, top, right, bottom = (int(edge) for edge in box)
    if shown.size == (right - left, bottom - top) and all(float(edge).is_integer() for edge in box):
        return image if image.size == shown.size else image.crop((left, top, right, bottom))
    return image.resize(shown.size, Image.Resampling.LANCZOS, box=_inside(box, image.size))


def _inside(box: Box, size: tuple[int, int]) -> Box:
    """Without what rounding put beyond the image."""
    return max(0.0, box[0]), max(0.0, box[1]), min(float(size[0]), box[2]), min(float(size[1]), box[3])
