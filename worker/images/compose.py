"""Colours and matte to what is shown: the cut-out on nothing, and the composite on a background."""

from __future__ import annotations

from PIL import Image

_SEEN = [0] + [255] * 255


def cutout(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """The subject on nothing.

    Where alpha is 0 the colours are cleared to 0, so that a removed background cannot be brought back by dropping the
    alpha channel.

    Args:
        rgb: mode RGB.
        alpha: mode L, same size.

    Returns:
        Image of mode RGBA, straight alpha.
    """
    image = Image.new("RGB", alpha.size)
    image.paste(rgb, mask=alpha.point(_SEEN))
    image.putalpha(alpha)
    return image


def composite(rgb: Image.Image, alpha: Image.Image, background: Image.Image) -> Image.Image:
    """The subject in front of `background` (mode RGB, same size and profile); mode RGB."""
    return Image.composite(rgb, background, alpha)
