"""Finished outputs to bytes: the last step before one is stored.

Settings that are the same for everybody: WebP with the second of seven efforts and AVIF at the eighth of ten speeds,
since the next steps cost a multiple of the CPU for a few per cent of size; one thread, since cores are planned; masks
in WebP without loss, which is smaller than with; no loss in the alpha of WebP; no chroma subsampling in AVIF with
alpha, which would let the cleared background bleed into the edge. Nothing Pillow remembers of the input is written.
"""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from worker.contract.errors import TooLarge
from worker.contract.outputs import ImageFormat
from worker.images.png import write_png

MAX_SIDES = {ImageFormat.WEBP: 16_383, ImageFormat.AVIF: 65_535, ImageFormat.JPEG: 65_500}
"""Pixels along one side: RFC 9649, 2.5 (14 bits); AV1 sequence header (16 bits); what libjpeg allows."""

_LOSSLESS = 100


def encode(
    image: Image.Image, form: ImageFormat, *, quality: int = 90, icc: bytes | None = None, exif: bytes = b""
) -> bytes:
    """The bytes of an image of mode L, RGB or RGBA.

    Args:
        image: the pixels.
        form: what to write.
        quality: 1 to 100, of JPEG, WebP and AVIF; 100 is lossless in WebP.
        icc: profile of the colours.
        exif: beginning with its TIFF header; see `worker.images.exif`.

    Raises:
        TooLarge: more pixels along a side than the format can say.
        ValueError: a mode that the format has no room for.
    """
    most = MAX_SIDES.get(form)
    if most is not None and max(image.size) > most:
        raise TooLarge(
            f"an output of {image.width} x {image.height} pixels, and {form.value} has at most {most} along a side; "
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
        # Exact: what was cleared stays cleared, instead of being filled in with what compresses best.
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
