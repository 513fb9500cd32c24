"""Picture and mask to what is written: the matte, and the cut-out.

After `to_mask`, before `encode`. Outputs carry pixels only: no EXIF, no XMP, no GPS position of the input.
"""

from __future__ import annotations

from PIL import Image, ImageChops

from worker.images.decode import Picture


def matte(picture: Picture, mask: Image.Image) -> Image.Image:
    """Opacity of the subject: the mask times the input's own alpha, since what was see-through is no subject.

    Args:
        picture: as decoded.
        mask: mode L, of the picture's size.

    Returns:
        Image of mode L; `mask` itself when the input is opaque.

    Raises:
        ValueError: the mask has another mode or size.
    """
    if mask.mode != "L" or mask.size != picture.rgb.size:
        raise ValueError(
            f"a mask is mode L of {picture.rgb.size}, not {mask.mode} of {mask.size}; resize it with to_mask"
        )
    return mask if picture.alpha is None else ImageChops.multiply(mask, picture.alpha)


def cutout(picture: Picture, mask: Image.Image) -> Image.Image:
    """The subject on nothing: the picture's colours, with the matte as alpha.

    Where alpha is 0 the colours are cleared to 0, so that a removed background cannot be brought back by dropping the
    alpha channel. Where alpha is above 0 the colours are the input's.

    Args:
        picture: as decoded.
        mask: mode L, of the picture's size.

    Returns:
        Image of mode RGBA, straight alpha.

    Raises:
        ValueError: the mask has another mode or size.
    """
    alpha = matte(picture, mask)
    kept = alpha.point([0] + [255] * 255)
    rgb = Image.new("RGB", alpha.size)
    rgb.paste(picture.rgb, mask=kept)
    rgb.putalpha(alpha)
    return rgb
