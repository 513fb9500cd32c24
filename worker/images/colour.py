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
import struct
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageCms

from worker.contract.errors import UnsupportedFormat
from worker.images.colour_space import MAX_PROFILE_BYTES, Signalled

OPAQUE = 255

_TIFF_BITS_PER_SAMPLE = 258  # TIFF 6.0, section 8
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


def to_rgb(image: Image.Image, visible: Image.Image | None = None, signalled: Signalled | None = None) -> Colour:
    """Split a loaded image into colour, alpha and profile.

    Args:
        image: the image, upright.
        visible: mode L, same size: 0 where the file makes pixels transparent by other means than an alpha channel.
        signalled: what the file says about its colours instead of an ICC profile.

    Returns:
        The parts. `alpha` is None when the image is opaque; `icc_profile` is set only if it describes the RGB pixels
        returned.

    Raises:
        UnsupportedFormat: the mode has no agreed white.
        ValueError, TypeError: the metadata contradicts the pixels, such as an invalid transparent colour.
    """
    base, alpha = _split(image)
    if visible is not None:
        alpha = visible if alpha is None else ImageChops.multiply(alpha, visible)
    if alpha is not None and alpha.getextrema()[0] == OPAQUE:
        alpha = None
    profile, notes = _profile(image)
    if signalled is not None:
        profile, notes = signalled.icc_profile, [signalled.note] if signalled.note else []
    space = profile[16:20]
    if base.mode != "RGB" and space == _PROFILE_SPACES[base.mode]:
        converted = _to_srgb(base, profile)
        if converted is None:
            return Colour(base.convert("RGB"), alpha, None, (*notes, "ICC profile not usable: plain conversion"))
        return Colour(converted, alpha, None, tuple(notes))
    if base.mode == "CMYK":
        notes.append("CMYK without an ICC profile: plain conversion")
    kept = space == b"RGB " and image.mode not in ("CMYK", "LAB")
    if profile and not kept and base.mode != "CMYK" and image.mode != "LAB":
        notes.append("ICC profile of another kind of pixels: dropped")
    rgb = base if base.mode == "RGB" else base.convert("RGB")
    return Colour(rgb, alpha, profile if kept else None, tuple(notes))


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the opaque image (L, RGB or CMYK) and its alpha, if it has any."""
    mode = image.mode
    if mode.startswith("I;16"):
        return _from_16_bits(image), None
    if mode in ("I", "F"):
        kind = "float" if mode == "F" else "integer"
        raise UnsupportedFormat(f"32-bit {kind} grey has no agreed white; save it as 8-bit or 16-bit grey")
    plain = _PLAIN.get(mode, "RGB")
    transparent = "transparency" in image.info or (image.palette is not None and image.palette.mode == "RGBA")
    if mode in _WITH_ALPHA or transparent:
        whole = image.convert(_WITH_ALPHA.get(mode) or ("LA" if plain == "L" else "RGBA"))
        return whole.convert("L" if whole.mode == "LA" else "RGB"), whole.getchannel("A")
    return image if mode == plain else image.convert(plain), None


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey."""
    values = np.asarray(image).astype(np.uint16)  # to native byte order
    tags = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_BITS_PER_SAMPLE) == (12,):
        values <<= 4  # Pillow returns 12-bit TIFF as 0..4095
    grey, rest = np.divmod(values, _STEP)
    grey += rest > _STEP // 2
    return Image.fromarray(grey.astype(np.uint8))


def _profile(image: Image.Image) -> tuple[bytes, list[str]]:
    """Return the embedded profile, or empty bytes and a note if it is damaged or too large.

    The header has 128 bytes, with the size at 0 and `acsp` at 36; a table of tags follows it (ICC.1:2022, 7.2, 7.3).
    """
    embedded = image.info.get("icc_profile")
    if not isinstance(embedded, bytes) or not embedded:
        return b"", []
    if len(embedded) > MAX_PROFILE_BYTES:
        return b"", [f"ICC profile larger than {MAX_PROFILE_BYTES >> 20} MiB: dropped"]
    if len(embedded) <= _ICC_HEADER_BYTES or embedded[36:40] != b"acsp":
        return b"", ["ICC profile not usable: dropped"]
    if int.from_bytes(embedded[:4], "big") > len(embedded) or _tags_end(embedded) > len(embedded):
        return b"", ["ICC profile cut off: dropped"]
    return embedded, []


def _tags_end(profile: bytes) -> int:
    """Return the number of bytes up to the end of the last tag of a profile."""
    table = profile[_ICC_HEADER_BYTES:]
    count = int.from_bytes(table[:4], "big")
    if len(table) < 4 + 12 * count:
        return len(profile) + 1
    places = (struct.unpack_from(">II", table, 4 + 12 * index + 4) for index in range(count))
    return max((offset + size for offset, size in places), default=0)


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
