"""Any Pillow mode to 8-bit RGB and, kept apart from it, the picture's own alpha.

Called by `decode` on a loaded, upright image. What is done to each mode:

- RGB, grey, palette, 1-bit, YCbCr: converted. PNG and TIFF colour of 16 bits per channel arrives as its high bytes.
- 16-bit grey: 65535 becomes 255, rounded (divided by 257, not clipped).
- Alpha of any kind (channel, premultiplied, palette, one transparent colour): kept apart as 8-bit grey; the colours
  under it stay as stored, composited on nothing.
- CMYK, and grey with a grey ICC profile: to sRGB through the profile. CMYK without a usable one: by Pillow's plain
  formula, which a note says. Adobe's inverted JPEG and YCCK have been put right by the decoder.
- CIE L*a*b*: to sRGB.
- 32-bit integer and float grey: refused, since no agreed value is white and a guess would be silently wrong.
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
_STEP = 257  # 16-bit values to one of 8 bits: 65535 = 255 * 257
_ICC_HEADER_BYTES = 128
_PROFILE_SPACES = {"L": b"GRAY", "CMYK": b"CMYK"}
_WITH_ALPHA = {"LA": "LA", "La": "LA", "RGBA": "RGBA", "RGBa": "RGBA", "PA": "RGBA"}
_PLAIN = {"1": "L", "L": "L", "CMYK": "CMYK"}


class Colour(NamedTuple):
    """An image taken apart."""

    rgb: Image.Image
    alpha: Image.Image | None
    icc_profile: bytes | None
    notes: tuple[str, ...]


def to_rgb(image: Image.Image) -> Colour:
    """Colour, alpha and profile of a loaded image.

    Returns:
        `alpha` is None where it hides nothing; `icc_profile` is kept only where it describes the RGB pixels returned.

    Raises:
        UnsupportedFormat: a mode without an agreed white.
        ValueError, TypeError: metadata that contradicts the pixels, such as a transparent colour that is none.
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
    converted = _through(base, profile)
    if converted is None:
        return Colour(base.convert("RGB"), alpha, None, ("ICC profile not usable: plain conversion",))
    return Colour(converted, alpha, None, ())


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Opaque L, RGB or CMYK, and the alpha if the image has any."""
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
    """8-bit grey of 16-bit grey, and the alpha of its one transparent value."""
    values = np.asarray(image).astype(np.uint16)  # to native byte order
    key = image.info.get("transparency")
    alpha = Image.fromarray(np.where(values == key, 0, OPAQUE).astype(np.uint8)) if isinstance(key, int) else None
    tags = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_BITS_PER_SAMPLE) == (12,):
        values <<= 4  # Pillow hands out 12-bit TIFF as 0..4095
    grey, rest = np.divmod(values, _STEP)
    grey += rest > _STEP // 2
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        grey = 255 - grey  # Pillow turns this round for up to 8 bits only
    return Image.fromarray(grey.astype(np.uint8)), alpha


def _profile(image: Image.Image) -> bytes:
    """The embedded bytes if they can be an ICC profile, else none: ICC.1:2022, 7.2 (128 bytes, 'acsp' at 36)."""
    embedded = image.info.get("icc_profile")
    # Not always bytes: a PNG text chunk may call itself icc_profile.
    if not isinstance(embedded, bytes) or len(embedded) <= _ICC_HEADER_BYTES:
        return b""
    return embedded if embedded[36:40] == b"acsp" else b""


def _through(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert to sRGB by way of the profile; None when the profile turns out not to be usable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return None


def in_profile(image: Image.Image, own: bytes | None, wanted: bytes | None) -> Image.Image:
    """The same colours as numbers of another profile, so that a background fits the picture it goes behind.

    Args:
        image: mode RGB.
        own: profile of `image`; None for sRGB.
        wanted: profile to convert to; None for sRGB.

    Returns:
        `image` itself where both are the same, or one turns out not to be usable: its numbers are then taken as they
        are.
    """
    if own == wanted:
        return image
    try:
        source, target = (
            ImageCms.ImageCmsProfile(io.BytesIO(icc)) if icc else ImageCms.createProfile("sRGB")
            for icc in (own, wanted)
        )
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    return image if converted is None else converted
