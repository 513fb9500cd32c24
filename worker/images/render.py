"""A decoded picture and the network's mask to the bytes of every output that was asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps

from worker.contract.messages import MaskQuality
from worker.contract.outputs import OutputKind, OutputOptions
from worker.images import subject
from worker.images.colour import in_profile
from worker.images.compose import composite, cutout
from worker.images.decode import Picture
from worker.images.encode import encode
from worker.images.quality import assess
from worker.images.refine import foreground


def render(
    picture: Picture, mask: npt.NDArray[np.uint8], options: OutputOptions, background: Picture | None = None
) -> tuple[MaskQuality, Iterator[tuple[OutputKind, bytes]]]:
    """Everything from the network's answer to files.

    Args:
        picture: decoded with `subject.wanted(options, ...)` or in full.
        mask: u8 [h, w], 0 background, 255 subject.
        options: what is asked for.
        background: the picture behind composites, where `options` name one.

    Returns:
        Facts about the mask, and the outputs one after the other: each is made when it is asked for, so that one at a
        time is held.

    Raises:
        TooLarge: an output has more pixels along a side than its format can say (while iterating).
        ValueError: `mask` is not u8 [h, w].
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:  # noqa: PLR2004 - height and width
        raise ValueError(f"a mask is u8 [h, w], not {mask.dtype} {list(mask.shape)}; take one plane of the answer")
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
        del image  # whoever stores the content need not wait with it in memory
        yield kind, content
        del content


def _backdrop(
    options: OutputOptions, background: Picture | None, size: tuple[int, int], profile: bytes | None
) -> Image.Image:
    """The background at the size of the output, in the profile of the picture; a picture covers it, centred."""
    if background is None:
        dot = Image.new("RGB", (1, 1), ImageColor.getrgb(options.background)[:3])
        return Image.new("RGB", size, in_profile(dot, None, profile).getpixel((0, 0)))
    fitted = ImageOps.fit(background.rgb, size, Image.Resampling.BILINEAR)
    return in_profile(fitted, background.icc_profile, profile)
