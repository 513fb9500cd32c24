"""Compute crop, size and opacity of the subject, as all outputs of a picture show it.

The mask is cropped and scaled once, from the network's output directly to the size of the outputs, so a matte is never
larger than the output.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from worker.contract.input_size import InputSize
from worker.contract.outputs import OutputKind, OutputOptions
from worker.images.decode import DecodeTarget, Picture
from worker.images.quality import SUBJECT
from worker.images.resize import bilinear
from worker.images.upright import Box

_OPAQUE = 255


@dataclass(frozen=True)
class Frame:
    """The part of a picture that its outputs show, and the size of the outputs.

    Attributes:
        box: left, top, right, bottom in pixels of the picture.
        size: width and height of the outputs in pixels.
    """

    box: tuple[int, int, int, int]
    size: tuple[int, int]


def decode_target(options: OutputOptions, network_size: InputSize) -> DecodeTarget:
    """Return the resolution at which to decode a picture: full size only if an output may show it at full size.

    The picture may lie or stand whatever the shape of the input, so both of its sides keep the input's longer one.
    """
    least = network_size.longer
    shown = {OutputKind.CUTOUT, OutputKind.COMPOSITE} & set(options.outputs)
    if not shown:
        return DecodeTarget(short_side=least, long_side=least, exif=options.exif)
    if options.max_side is None or options.crop:  # the size of a crop is known only after inference
        return DecodeTarget(exif=options.exif)
    return DecodeTarget(short_side=least, long_side=max(least, options.max_side), exif=options.exif)


def small_matte(picture: Picture, mask: npt.NDArray[np.uint8]) -> Image.Image:
    """Return the mask u8 [h, w] multiplied by the alpha of the input, at the size of the mask, mode L."""
    small = Image.fromarray(mask)
    if picture.alpha is None:
        return small
    return ImageChops.multiply(small, bilinear(picture.alpha, small.size))


def frame(size: tuple[int, int], matte: Image.Image, options: OutputOptions) -> Frame:
    """Return the part to show and its size, for a picture of `size` with the small matte `matte`.

    If the matte is empty, nothing is cropped.
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
    """Return the box around all pixels of at least grey level `least`, plus the margin; None if there are none.

    The box includes one extra pixel of the small matte on each side, since the resize spreads the edge.
    """
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
    """Return the opacity of the subject: the mask times the alpha of the input, whose transparent parts are no subject.

    Args:
        picture: the decoded picture.
        mask: output of the network, u8 [h, w].
        shown: part and size of the output.
        options: only the threshold is used.

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
    """Return the smallest grey level of at least this opacity, 0 to 1."""
    return max(1, math.ceil(threshold * _OPAQUE))


def _step(least: int) -> list[int]:
    """Return a point table that maps grey levels from `least` up to 255, and all others to 0."""
    return [0] * least + [_OPAQUE] * (_OPAQUE + 1 - least)


def colours(picture: Picture, shown: Frame) -> Image.Image:
    """Return the colours of the shown part of the picture at the size of the outputs, mode RGB."""
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
    # Colours of transparent pixels are arbitrary and must not bleed into the edge: Pillow resizes RGBA premultiplied.
    whole = picture.rgb.crop(shown.box)
    whole.putalpha(picture.alpha.crop(shown.box))
    return whole.resize(shown.size, Image.Resampling.LANCZOS).convert("RGB")


def _cut(image: Image.Image, shown: Frame, box: Box) -> Image.Image:
    """Return `box` of an image at the size of the outputs; the image itself if that is the whole image."""
    left, top, right, bottom = (int(edge) for edge in box)
    if shown.size == (right - left, bottom - top) and all(float(edge).is_integer() for edge in box):
        return image if image.size == shown.size else image.crop((left, top, right, bottom))
    return image.resize(shown.size, Image.Resampling.LANCZOS, box=_inside(box, image.size))


def _inside(box: Box, size: tuple[int, int]) -> Box:
    """Clip a box to the image, since rounding can place it slightly outside."""
    return max(0.0, box[0]), max(0.0, box[1]), min(float(size[0]), box[2]), min(float(size[1]), box[3])
