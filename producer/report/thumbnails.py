"""Small pictures of inputs and outputs, embedded in the page as `data:` URLs.

A worker has decoded or written these objects before, but they may have been replaced since. So the same limits apply,
and a picture that cannot be shown is replaced by the reason.
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
"""Longer side of a thumbnail in pixels."""

_DISPLAY_SCALE = 2 / 3
"""Size on the page, relative to the thumbnail; the extra pixels are for high-density screens."""

_THREADS = 4
_DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, EOFError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""Exceptions that Pillow raises on damaged files; `worker.images.decode` lists which file raises which."""

_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP")
_MIB = 1024 * 1024
_PREFERRED_KINDS = (OutputKind.CUTOUT, OutputKind.MASK, OutputKind.COMPOSITE)
"""Kinds of output, the clearest view of the subject first."""


@dataclass(frozen=True)
class Thumbnail:
    """Attributes of an `img` element: `data:` URL, and size in CSS pixels."""

    url: str
    width: int
    height: int


@dataclass(frozen=True)
class PicturePair:
    """The pictures of one sample: photograph and output."""

    outcome: Outcome
    output: str
    """Key of the output shown, relative to the destination."""

    before: Thumbnail | None
    after: Thumbnail | None
    aligned: bool
    """Both pictures show the same section of the scene, so a slider can uncover one below the other."""

    problem: str = ""
    """Why there are no pictures; empty if there are."""


def load_pairs(
    store: ObjectStore, view: JobView, samples: Sequence[Outcome], limits: LimitSettings
) -> Iterator[PicturePair]:
    """Yield the pictures of every sample, in order; a pair that cannot be loaded holds the reason instead."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about sizes and damaged files, which are handled here
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="thumbnail") as threads:
        yield from threads.map(lambda outcome: _load_pair(store, view, outcome, limits), samples)


def _load_pair(store: ObjectStore, view: JobView, outcome: Outcome, limits: LimitSettings) -> PicturePair:
    options = view.options
    kind = next(kind for kind in _PREFERRED_KINDS if kind in options.outputs)
    output = options.output_key(outcome.key, kind)
    try:
        before = _fetch(store, options.source / outcome.key, limits).convert("RGB")
        after = _fetch(store, options.dest / output, limits)
        aligned = not options.crop and _same_shape(before, after)
        if aligned:
            after = after.resize(before.size)  # sizes may differ by a pixel, from rounding
        if kind is OutputKind.MASK and aligned:
            after = _cut_out(before, after)
    except MaskmillError as error:
        return PicturePair(outcome, output, None, None, aligned=False, problem=str(error))
    return PicturePair(outcome, output, _thumbnail(before), _thumbnail(after), aligned=aligned)


def _fetch(store: ObjectStore, url: S3Url, limits: LimitSettings) -> Image.Image:
    """Return the object as a small image.

    Raises:
        ImageError: the object is missing, too large or cannot be decoded.
    """
    data, _ = store.get(url, max_bytes=limits.max_object_mib * _MIB)
    try:
        return _decode_small(data, limits)
    except _DECODE_ERRORS as error:
        raise Undecodable(f"{url} cannot be shown: {type(error).__name__}") from error


def _decode_small(data: bytes, limits: LimitSettings) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        image.draft(None, (SIDE, SIDE))  # decodes a JPEG at reduced size
        if image.width * image.height > limits.max_megapixels * 1_000_000:
            raise TooLarge(f"{image.width} x {image.height} pixels are more than the limit")
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


def _thumbnail(image: Image.Image) -> Thumbnail:
    body = io.BytesIO()
    image.save(body, ImageFormat.WEBP.value, quality=80, method=4)
    url = "data:image/webp;base64," + base64.b64encode(body.getvalue()).decode("ascii")
    width, height = (max(1, round(side * _DISPLAY_SCALE)) for side in image.size)
    return Thumbnail(url, width, height)
