"""A folder of image files that are edge cases, and the expected outcome of each.

The files are made with Pillow and NumPy only. The pictures show a red subject on a plain light background, which has a
clear mask. Every run writes the same bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageDraw

SIZE = (160, 120)
BACKGROUND, SUBJECT = (214, 220, 226), (196, 32, 40)


@dataclass(frozen=True)
class Expected:
    """Expected outcome of a file: its code if it fails, otherwise its upright size (width, height)."""

    outcome: Literal["ok", "failed"]
    code: str = ""
    size: tuple[int, int] | None = None


def scene(size: tuple[int, int] = SIZE) -> Image.Image:
    """Return an ellipse in `SUBJECT` on `BACKGROUND`, mode RGB; the left half of the ellipse is a little darker."""
    width, height = size
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    box = (width * 0.3, height * 0.2, width * 0.7, height * 0.8)
    draw.ellipse(box, fill=SUBJECT)
    draw.pieslice(box, 90, 270, fill=(160, 24, 32))
    return picture


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the bytes of a picture in Pillow's format `kind`."""
    buffer = io.BytesIO()
    # Some of Pillow's writers store their settings in the image, so encode a copy.
    picture.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG with valid checksums whose header claims this size, with 4 KiB of image data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(4096))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    # Stored on its side. A quarter turn clockwise gives the upright scene of size SIZE reversed.
    return encoded(scene((SIZE[1], SIZE[0])).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif.tobytes())


def _grey16() -> bytes:
    grey = np.asarray(scene().convert("L")).astype(np.uint16) * 257
    return encoded(Image.fromarray(grey), "PNG")


def _animated() -> bytes:
    frames = [scene(), scene().transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)


def _palette_alpha() -> bytes:
    picture = scene().quantize(16)
    background = picture.getpixel((0, 0))
    alphas = bytes(0 if index == background else 255 for index in range(16))
    return encoded(picture, "PNG", transparency=alphas)


def _heic() -> bytes:
    brands = b"heic" + bytes(4) + b"mif1heic"
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(64)


_OK = Expected("ok", size=SIZE)
_FILES: dict[str, tuple[Callable[[], bytes], Expected]] = {
    "truncated.jpg": (
        lambda: encoded(scene(), "JPEG", quality=90)[: len(encoded(scene(), "JPEG", quality=90)) // 2],
        Expected("failed", "undecodable"),
    ),
    "text.jpg": (lambda: b"This is not a picture.\n" * 20, Expected("failed", "undecodable")),
    "zero.jpg": (lambda: b"", Expected("failed", "empty")),
    "huge-header.png": (lambda: png_claiming(60_000, 60_000), Expected("failed", "too_large")),
    # Not a picture, but the extra `heif` has to look at it before that is known.
    "phone.heic": (_heic, Expected("failed", "undecodable" if find_spec("pi_heif") else "unsupported_format")),
    "cmyk.jpg": (lambda: encoded(scene().convert("CMYK"), "JPEG", quality=90), _OK),
    "grey16.png": (_grey16, _OK),
    "rotated.jpg": (_rotated, Expected("ok", size=(SIZE[1], SIZE[0]))),
    "animated.gif": (_animated, _OK),
    "one-pixel.png": (lambda: encoded(scene((1, 1)), "PNG"), Expected("ok", size=(1, 1))),
    "picture.avif": (lambda: encoded(scene(), "AVIF", quality=80, max_threads=1), _OK),
    "palette-alpha.png": (_palette_alpha, _OK),
    "naïve #1 100% ünïcode.jpg": (lambda: encoded(scene(), "JPEG", quality=90), _OK),
}


def make(folder: Path) -> dict[str, Expected]:
    """Write the files into `folder`, which is created if it does not exist.

    Returns:
        File name -> expected outcome.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in _FILES.items():
        (folder / name).write_bytes(content())
    return {name: expected for name, (_, expected) in _FILES.items()}
