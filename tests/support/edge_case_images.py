"""A folder of awkward image files, made with Pillow and NumPy only, and what must become of each.

The pictures show a red subject on a plain light background, so that a mask makes sense. The same call writes the same
bytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageDraw

SIZE = (160, 120)
BACKGROUND, SUBJECT = (214, 220, 226), (196, 32, 40)


@dataclass(frozen=True)
class Expected:
    """What must become of a file: the outcome, the code if it fails, the size (w, h) upright if it does not."""

    outcome: Literal["ok", "failed"]
    code: str = ""
    size: tuple[int, int] | None = None


def scene(size: tuple[int, int] = SIZE) -> Image.Image:
    """An ellipse in `SUBJECT` on `BACKGROUND`, mode RGB, the left half of the ellipse a little darker."""
    width, height = size
    picture = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(picture)
    box = (width * 0.3, height * 0.2, width * 0.7, height * 0.8)
    draw.ellipse(box, fill=SUBJECT)
    draw.pieslice(box, 90, 270, fill=(160, 24, 32))
    return picture


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a picture in Pillow's format `kind`."""
    buffer = io.BytesIO()
    # A copy, since some of Pillow's writers leave their settings in the image.
    picture.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def png_claiming(width: int, height: int) -> bytes:
    """A PNG with valid checksums whose header claims any size, with next to no image data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(4096))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    # Stored lying on its side; a quarter turn clockwise makes it the upright scene of SIZE reversed.
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
    "phone.heic": (_heic, Expected("failed", "unsupported_format")),
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
    """Write the files into `folder`, which may not exist yet.

    Returns:
        What must become of each, by file name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in _FILES.items():
        (folder / name).write_bytes(content())
    return {name: expected for name, (_, expected) in _FILES.items()}
