"""Render a decoded picture and the network's mask to the bytes of every requested output."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps

from worker.contract.messages import MaskQuality
from worker.contract.outputs import OutputKind, OutputOptions
from worker.images import subject
from worker.images.colour import convert_profile
from worker.images.compose import composite, cutout
from worker.images.decode import Picture
from worker.images.encode import encode
from worker.images.quality import assess
from worker.images.refine import foreground


def render(
    picture: Picture, mask: npt.NDArray[np.uint8], options: OutputOptions, background: Picture | None = None
) -> tuple[MaskQuality, Iterator[tuple[OutputKind, bytes]]]:
    """Render all outputs of one image.

    Args:
        picture: decoded with `subject.decode_target(options, ...)`, or at full size.
        mask: output of the network, u8 [h, w], 0 background, 255 subject.
        options: which outputs, and how.
        background: the picture behind composites, if `options` name one.

    Returns:
        The quality of the mask, and an iterator over the outputs. Each output is rendered when the iterator reaches
        it, so only one is held in memory.

    Raises:
        TooLarge: a side of an output is longer than its format allows (while iterating).
        ValueError: `mask` is not u8 [h, w].
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:  # noqa: PLR2004 - height and width
        raise ValueError(f"a mask is u8 [h, w], not {mask.dtype} {list(mask.shape)}; take one plane of the output")
    small = subject.small_matte(picture, mask)
    shown = subject.frame(picture.size, small, options)
    return assess(small), _outputs(picture, mask, shown, options, background)


def _outputs(
    picture: Picture,
    mask: npt.NDArray[np.uint8],
    shown: subject.Frame,
    options: OutputOptions,
    background: Picture | None,
) -> Iterator[tuple[OutputKind, bytes]]:
    alpha = subject.alpha(picture, mask, shown, options)
    rgb: Image.Image | None = None
    for kind in options.outputs:
        form = options.format_of(kind)
        if kind is OutputKind.MASK:
            yield kind, encode(alpha, form, quality=options.quality)
            continue
        if rgb is None:
            rgb = subject.colours(picture, shown)
            rgb = foreground(rgb, alpha) if options.refine else rgb
        if kind is OutputKind.CUTOUT:
            image = cutout(rgb, alpha)
        else:
            image = composite(rgb, alpha, _backdrop(options, background, shown.size, picture.icc_profile))
        content = encode(image, form, quality=options.quality, icc=picture.icc_profile, exif=picture.exif)
        del image  # frees it while the caller stores the content
        yield kind, content
        del content


def _backdrop(
    options: OutputOptions, background: Picture | None, size: tuple[int, int], profile: bytes | None
) -> Image.Image:
    """Return the background at the size of the output, in ICC profile `profile`.

    A background picture is scaled to cover the output and cropped around its centre.
    """
    if background is None:
        dot = Image.new("RGB", (1, 1), ImageColor.getrgb(options.background)[:3])
        return Image.new("RGB", size, convert_profile(dot, None, profile).getpixel((0, 0)))
    fitted = ImageOps.fit(background.rgb, size, Image.Resampling.BILINEAR)
    return convert_profile(fitted, background.icc_profile, profile)
