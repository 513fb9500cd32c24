"""Small pictures of what went in and what came out, inside the page as `data:` URLs.

What is decoded here are objects that a worker has decoded before, or has written; they may have been replaced since, so
the same limits hold, and whatever cannot be shown is said in its place.
"""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL import Image, ImageOps

from worker.contract.errors import MaskmillError, TooLarge, Undecodable
from worker.contract.job import JobView
from worker.contract.messages import Outcome
from worker.contract.outputs import ImageFormat, OutputKind
from worker.contract.s3url import S3Url
from worker.contract.settings import LimitSettings
from worker.contract.storage.s3 import ObjectStore

SIDE = 480
"""Longer side in pixels; shown at two thirds of it, for dense screens."""

_SHOWN = 2 / 3
_AT_ONCE = 4
_HOSTILE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, EOFError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""What Pillow raises on damaged files (`worker.images.decode` says which on what)."""

_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP")
_MIB = 1024 * 1024
_BEST = (OutputKind.CUTOUT, OutputKind.MASK, OutputKind.COMPOSITE)
"""What shows best what was found."""


@dataclass(frozen=True)
class Picture:
    """For an `img` element."""

    url: str
    width: int
    height: int


@dataclass(frozen=True)
class Shown:
    """One sample with its pictures."""

    outcome: Outcome
    output: str
    """Key of the output shown, relative to the destination."""

    before: Picture | None
    after: Picture | None
    aligned: bool
    """They lie on each other: one may be uncovered by the other."""

    trouble: str = ""
    """Why there is no picture."""


def shown(store: ObjectStore, view: JobView, samples: Sequence[Outcome], limits: LimitSettings) -> Iterator[Shown]:
    """Every sample in order, with pictures where they can be had."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of sizes and odd files, which are dealt with here
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="thumbnail") as threads:
        yield from threads.map(lambda outcome: _one(store, view, outcome, limits), samples)


def _one(store: ObjectStore, view: JobView, outcome: Outcome, limits: LimitSettings) -> Shown:
    options = view.options
    kind = next(kind for kind in _BEST if kind in options.outputs)
    output = options.output_key(outcome.key, kind)
    try:
        before = _fetched(store, options.source / outcome.key, limits).convert("RGB")
        after = _fetched(store, options.dest / output, limits)
        aligned = not options.crop and _same_shape(before, after)
        if aligned:
            after = after.resize(before.size)  # a pixel more or less is from rounding
        if kind is OutputKind.MASK and aligned:
            after = _cut_out(before, after)
    except MaskmillError as error:
        return Shown(outcome, output, None, None, aligned=False, trouble=str(error))
    return Shown(outcome, output, _picture(before), _picture(after), aligned=aligned)


def _fetched(store: ObjectStore, place: S3Url, limits: LimitSettings) -> Image.Image:
    data, _ = store.get(place, max_bytes=limits.max_object_mib * _MIB)
    try:
        return _small(data, limits)
    except _HOSTILE as error:
        raise Undecodable(f"{place} cannot be shown: {type(error).__name__}") from error


def _small(data: bytes, limits: LimitSettings) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        image.draft(None, (SIDE, SIDE))  # JPEGs are decoded at a part of their size
        if image.width * image.height > limits.max_megapixels * 1_000_000:
            raise TooLarge(f"{image.width} x {image.height} pixels are too many to show")
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16-bit grey
            upright = upright.point(lambda value: value / 256).convert("L")
        small = upright.convert("RGBA" if upright.has_transparency_data else "L" if upright.mode == "L" else "RGB")
    small.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    return small


def _same_shape(one: Image.Image, other: Image.Image) -> bool:
    return abs(one.width * other.height - other.width * one.height) <= 2 * SIDE


def _cut_out(photograph: Image.Image, mask: Image.Image) -> Image.Image:
    cut = photograph.copy()
    cut.putalpha(mask.convert("L"))
    return cut


def _picture(image: Image.Image) -> Picture:
    body = io.BytesIO()
    image.save(body, ImageFormat.WEBP.value, quality=80, method=4)
    url = "data:image/webp;base64," + base64.b64encode(body.getvalue()).decode("ascii")
    return Picture(url, max(1, round(image.width * _SHOWN)), max(1, round(image.height * _SHOWN)))
