"""Encode finished outputs: the last step before an output is stored.

Fixed settings:

- WebP method 2 (of 0 to 6) and AVIF speed 8 (of 0 to 10): slower settings cost a multiple of the CPU time and save a
  few per cent of size.
- One thread, since each process has a fixed share of the cores.
- WebP masks are lossless, which is smaller than lossy; the alpha of WebP is always lossless.
- AVIF with alpha has no chroma subsampling, which would let the cleared background bleed into the edge.

Metadata that Pillow keeps of the input is not written.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from worker.contract.errors import TooLarge
from worker.contract.outputs import ImageFormat
from worker.images.png import write_png

MAX_SIDES = {ImageFormat.WEBP: 16_383, ImageFormat.AVIF: 65_535, ImageFormat.JPEG: 65_500}
"""Maximum side in pixels: RFC 9649, 2.5 (14 bits); AV1 sequence header (16 bits); limit of libjpeg."""

_LOSSLESS = 100


def encode(
    image: Image.Image, form: ImageFormat, *, quality: int = 90, icc: bytes | None = None, exif: bytes = b""
) -> bytes:
    """Encode an image of mode L, RGB or RGBA.

    Args:
        image: the pixels.
        form: output format.
        quality: 1 to 100, for JPEG, WebP and AVIF; 100 is lossless in WebP.
        icc: ICC profile of the pixels.
        exif: EXIF data beginning with its TIFF header; see `worker.images.exif`.

    Raises:
        TooLarge: a side is longer than the format allows.
        ValueError: the format does not support the mode.
    """
    most = MAX_SIDES.get(form)
    if most is not None and max(image.size) > most:
        raise TooLarge(
            f"the output has {image.width} x {image.height} pixels, but {form.value} allows at most {most} per side; "
            f"use --max-side {most} or another format"
        )
    if form is ImageFormat.PNG:
        return write_png(image, icc, exif)
    if form is ImageFormat.JPEG and image.mode == "RGBA":
        raise ValueError("JPEG has no transparency; composite the image first")
    buffer = io.BytesIO()
    options: dict[str, Any] = _options(image.mode, form, quality)
    image.save(buffer, form.value, icc_profile=icc or None, exif=b"Exif\0\0" + exif if exif else b"", **options)
    return buffer.getvalue()


def _options(mode: str, form: ImageFormat, quality: int) -> dict[str, Any]:
    if form is ImageFormat.WEBP:
        lossless = mode == "L" or quality == _LOSSLESS
        # exact: cleared pixels stay cleared; otherwise libwebp fills them with whatever compresses best.
        return {
            "quality": 0 if lossless else quality,
            "lossless": lossless,
            "exact": lossless,
            "method": 2,
            "alpha_quality": 100,
        }
    if form is ImageFormat.AVIF:
        subsampling = "4:4:4" if mode == "RGBA" else "4:2:0"
        return {"quality": quality, "speed": 8, "max_threads": 1, "subsampling": subsampling}
    return {"quality": quality, "comment": b""}
