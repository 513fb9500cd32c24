"""Convert any Pillow mode to 8-bit RGB, with the alpha channel kept apart.

Called by `decode` on a loaded, upright image. Conversion by mode:

- RGB, grey, palette, 1-bit, YCbCr: converted by Pillow. PNG and TIFF colour with 16 bits per channel is reduced to its
  high bytes.
- 16-bit grey: divided by 257 and rounded, so 65535 becomes 255; not clipped.
- Alpha of any kind (channel, premultiplied, palette, one transparent colour): returned separately as 8-bit grey. The
  colours under it stay as stored and are not composited on a background.
- CMYK, and grey with a grey ICC profile: converted to sRGB through the profile. CMYK without a usable profile:
  converted by Pillow's plain formula, with a note. The decoder has already corrected Adobe's inverted JPEG and YCCK.
- CIE L*a*b*: converted to sRGB.
- 32-bit integer and float grey: refused. There is no agreed value for white, and a guess would be silently wrong.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from worker.contract.errors import UnsupportedFormat

OPAQUE = 255

_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC = 258, 262  # TIFF 6.0, section 8
_WHITE_IS_ZERO = 0
_STEP = 257  # 16-bit values per 8-bit value: 65535 = 255 * 257
_ICC_HEADER_BYTES = 128
_PROFILE_SPACES = {"L": b"GRAY", "CMYK": b"CMYK"}
_WITH_ALPHA = {"LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}
_PLAIN = {"1": "L", "L": "L", "CMYK": "CMYK"}


class Colour(NamedTuple):
    """The parts of an image: 8-bit colour, alpha, ICC profile, and notes on what could not be converted as stored."""

    rgb: Image.Image
    alpha: Image.Image | None
    icc_profile: bytes | None
    notes: tuple[str, ...]


def to_rgb(image: Image.Image) -> Colour:
    """Split a loaded image into colour, alpha and profile.

    Returns:
        The parts. `alpha` is None when the image is opaque; `icc_profile` is set only if it describes the RGB pixels
        returned.

    Raises:
        UnsupportedFormat: the mode has no agreed white.
        ValueError, TypeError: the metadata contradicts the pixels, such as an invalid transparent colour.
    """
    base, alpha = _split(image)
    if alpha is not None and alpha.getextrema()[0] == OPAQUE:
        alpha = None
    profile = _profile(image)
    space = profile[16:20]
    if base.mode == "RGB" or space != _PROFILE_SPACES[base.mode]:
        notes = ("CMYK without an ICC profile: plain conversion",) if base.mode == "CMYK" else ()
        kept = profile if space == b"RGB " and image.mode not in ("CMYK", "LAB") else None
        return Colour(base if base.mode == "RGB" else base.convert("RGB"), alpha, kept, notes)
    converted = _to_srgb(base, profile)
    if converted is None:
        return Colour(base.convert("RGB"), alpha, None, ("ICC profile not usable: plain conversion",))
    return Colour(converted, alpha, None, ())


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the opaque image (L, RGB or CMYK) and its alpha, if it has any."""
    mode = image.mode
    if mode.startswith("I;16"):
        return _from_16_bits(image)
    if mode in ("I", "F"):
        kind = "float" if mode == "F" else "integer"
        raise UnsupportedFormat(f"32-bit {kind} grey has no agreed white; save it as 8-bit or 16-bit grey")
    plain = _PLAIN.get(mode, "RGB")
    transparent = "transparency" in image.info or (image.palette is not None and image.palette.mode == "RGBA")
    if mode in _WITH_ALPHA or transparent:
        whole = image.convert(_WITH_ALPHA.get(mode) or ("LA" if plain == "L" else "RGBA"))
        return whole.convert("L" if whole.mode == "LA" else "RGB"), whole.getchannel("A")
    return image if mode == plain else image.convert(plain), None


def _from_16_bits(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return 16-bit grey as 8-bit grey, and the alpha of its one transparent value, if it has one."""
    values = np.asarray(image).astype(np.uint16)  # to native byte order
    key = image.info.get("transparency")
    alpha = Image.fromarray(np.where(values == key, 0, OPAQUE).astype(np.uint8)) if isinstance(key, int) else None
    tags = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_BITS_PER_SAMPLE) == (12,):
        values <<= 4  # Pillow returns 12-bit TIFF as 0..4095
    grey, rest = np.divmod(values, _STEP)
    grey += rest > _STEP // 2
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey  # Pillow inverts WhiteIsZero only for up to 8 bits
    return Image.fromarray(grey.astype(np.uint8)), alpha


def _profile(image: Image.Image) -> bytes:
    """Return the embedded profile, or empty bytes if its header is invalid (ICC.1:2022, 7.2: 128 bytes, acsp at 36)."""
    embedded = image.info.get("icc_profile")
    # Not always bytes: a PNG text chunk may have the keyword icc_profile.
    if not isinstance(embedded, bytes) or len(embedded) <= _ICC_HEADER_BYTES:
        return b""
    return embedded if embedded[36:40] == b"acsp" else b""


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert to sRGB through the profile; return None if the profile is not usable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def convert_profile(image: Image.Image, source: bytes | None, target: bytes | None) -> Image.Image:
    """Convert an image to another ICC profile, so that a background matches the picture in front of it.

    Args:
        image: mode RGB.
        source: profile of `image`; None for sRGB.
        target: profile to convert to; None for sRGB.

    Returns:
        `image` itself if both profiles are the same or one of them is not usable; its values are then kept unconverted.
    """
    if source == target:
        return image
    try:
        opened_source, opened_target = (
            ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else ImageCms.createProfile("sRGB")
            for icc in (source, target)
        )
        converted = ImageCms.profileToProfile(image, opened_source, opened_target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    return image if converted is None else converted
