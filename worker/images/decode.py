"""Bytes of an object to a `Picture`: the first step of every image, and the one that meets untrusted bytes.

    signature allow-listed? ── read the header ── within the limits? ── decode the pixels ── upright ── 8-bit RGB

`worker.images.colour` tells what is done to each pixel mode. Apart from that:

- EXIF orientation (also of PNG, WebP, AVIF and TIFF) is applied, so width and height are as a viewer shows them. Of
  other metadata only an ICC profile that describes the RGB pixels is kept, and EXIF where `Wanted` asks for it.
- A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (scaled inverse DCT) where `Wanted` says that so much is enough.
- Of animations (GIF, PNG, WebP, AVIF), of the pages of a TIFF and of MPO the first picture is taken.
- HEIC, SVG, PDF, camera raw and others are refused by name; so is a TIFF whose first page is only a preview.
- Truncated files are refused. The checksums of PNG are verified; JPEG has none, so a flipped bit in it goes unseen.

Only seven of Pillow's parsers can ever run: they are called directly instead of through `Image.open`, which also gives
their own words for what is wrong ("cannot identify" is all that `Image.open` says).

Two settings that Pillow and Python only have process-wide are touched here, both at most once. Warnings that come out
of Pillow's modules are ignored: they speak of metadata (broken EXIF, odd transparency) that is dropped anyway, and
`catch_warnings` is not safe in threads. And Pillow's guard against decompression bombs, one number for the process, is
raised where the operator allows more than twice that number (its point of refusal), never lowered.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from worker.contract.errors import ImageError, TooLarge, Undecodable, UnsupportedFormat
from worker.contract.outputs import ExifPolicy
from worker.contract.settings import LimitSettings
from worker.images.colour import to_rgb
from worker.images.exif import carried
from worker.images.headers import check_jpeg_scans, sniff, webp_size
from worker.images.upright import Box, turned, turned_box

MAX_SIDE = 65_535
"""Pixels along one side: the most that a JPEG can say (16 bits; ITU-T T.81, B.2.2)."""

HOSTILE = (
    OSError,  # most of Pillow: truncated or broken data, and what libtiff, libwebp and zlib refuse
    SyntaxError,  # Pillow's parsers: a header, checksum, chunk or EXIF block that is not well-formed
    ValueError,  # a field out of range, text chunks beyond Pillow's memory limit, UnicodeError
    TypeError,  # a TIFF tag or PNG text of the wrong type: a float offset, a string for the transparent colour
    LookupError,  # an index or a tag that the header promised: a PNG without image data
    RuntimeError,  # libavif: missing items, colour planes that do not decode
    ArithmeticError,  # a BigTIFF offset beyond 63 bits (OverflowError), an AVIF time scale of 0
    EOFError,  # an animation without a first frame
    struct.error,  # a cut-off EXIF block
    zlib.error,  # a cut-off compressed chunk
)
"""What Pillow raises on hostile bytes: found by mutating valid files of each format, or read in its parsers.

`MemoryError` is left out on purpose: sizes are checked before pixels are asked for, so it speaks of the machine. So is
`AttributeError`, which no mutation raised: it would hide our own slips.
"""

_PARSERS: dict[str, Callable[[IO[bytes], str], ImageFile.ImageFile]] = {
    "JPEG": jpeg_factory,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
    "AVIF": AvifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
}
_UNSUPPORTED = ("unsupported", "not yet supported", "cannot handle", "unknown pixel mode")
_TIFF_SUBFILE_TYPE, _TIFF_DNG_VERSION = 254, 50706
_REDUCED_RESOLUTION = 1  # bit 0 of NewSubfileType, TIFF 6.0, section 8
_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_MIB = 1 << 20

OVERSAMPLING = 1.19
"""Sides that a scaled decode must keep, as a multiple of the side that is needed.

The inverse DCT at 1/2 averages pixels in another way than an antialiasing resize from full size does. With this margin
the resized values of the test photographs differ by 2.5 of 255 in the mean at most (typically 1), 99 % of them by 15 at
most; at 1.0 by up to 3.5 and 22. It is as large as it can be with 2 megapixels (1632 x 1224) read at 1/2 for 512.
"""


@dataclass(frozen=True)
class Wanted:
    """How much of a picture its reader needs.

    Attributes:
        short: pixels of the shorter side that are enough; None: all.
        long: pixels of the longer side that are enough; None: all.
        exif: what of it to keep.
    """

    short: int | None = None
    long: int | None = None
    exif: ExifPolicy = ExifPolicy.STRIP

    def scale(self, width: int, height: int) -> int:
        """8, 4, 2 or 1: what both sides may be divided by."""
        if self.short is None or self.long is None:
            return 1
        for scale in (8, 4, 2):
            if min(width, height) >= scale * self.short * OVERSAMPLING and (
                max(width, height) >= scale * self.long * OVERSAMPLING
            ):
                return scale
        return 1


ALL = Wanted()


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image, upright, in 8 bits per channel.

    Attributes:
        rgb: mode RGB; under a transparent `alpha` the colours are as stored.
        alpha: mode L, same size; None when the input is opaque.
        icc_profile: describes the numbers in `rgb`; None for sRGB or unknown.
        notes: what could not be done as the file asks, in words, such as a profile that is not usable.
        exif: as an output may carry it; empty unless asked for.
        full_size: width and height of the picture where `rgb` was decoded smaller; None where it was not.
        box: the part of `rgb` that shows the picture where `rgb` was decoded smaller: the last column and row may stand
            for a part of a pixel only.
    """

    rgb: Image.Image
    alpha: Image.Image | None = None
    icc_profile: bytes | None = None
    notes: tuple[str, ...] = ()
    exif: bytes = b""
    full_size: tuple[int, int] | None = None
    box: Box | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture, upright, whatever the size of `rgb`."""
        return self.full_size or self.rgb.size

    @property
    def width(self) -> int:
        """Pixels of the picture, as seen upright."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Pixels of the picture, as seen upright."""
        return self.size[1]


def decode(data: bytes, limits: LimitSettings, wanted: Wanted = ALL) -> Picture:
    """Decode the first picture in `data`, a JPEG perhaps smaller if `wanted` allows it.

    Raises:
        EmptyObject: no bytes.
        TooLarge: more bytes or, by the header, more pixels than `limits` allow, or a side above `MAX_SIDE`.
        UnsupportedFormat: a format or pixel mode that is not read here.
        Undecodable: not a picture, truncated or broken.
    """
    if len(data) > limits.max_object_mib * _MIB:
        raise TooLarge(
            f"{len(data):,} bytes, more than {limits.max_object_mib} MiB; "
            "raise MASKMILL_LIMITS__MAX_OBJECT_MIB to allow it"
        )
    name = sniff(data)
    _settle_process_wide(limits)
    with _image_errors(name):
        image = _read_header(name, data, limits)
        size, scale = image.size, wanted.scale(*image.size) if name == "JPEG" else 1
        if scale > 1:
            image.draft(image.mode, (size[0] // scale, size[1] // scale))
        image.load()
        orientation, exif, notes = _exif(image, wanted.exif)
        upright = turned(image, orientation)
        colour = to_rgb(upright)
    for part in (colour.rgb, colour.alpha):
        if part is not None:
            part.info.clear()  # EXIF and its like; `rgb` may be the image that was read
    full_size = box = None
    if scale > 1:
        full_size = size if upright.size == image.size else (size[1], size[0])
        box = turned_box((0, 0, size[0] / scale, size[1] / scale), image.size, orientation)
    return Picture(colour.rgb, colour.alpha, colour.icc_profile, notes + colour.notes, exif, full_size, box)


def _read_header(name: str, data: bytes, limits: LimitSettings) -> ImageFile.ImageFile:
    """The image with its pixels still to be decoded, after all checks that the header allows."""
    if name == "WEBP" and (size := webp_size(data)):
        _check_size(size, limits)
    image = _PARSERS[name](io.BytesIO(data), "")
    _check_size(image.size, limits)
    if name == "PNG":
        PngImageFile(io.BytesIO(data)).verify()  # checksums; the decoder itself skips those of the image data
    if isinstance(image, TiffImageFile):
        _refuse_preview(image)
    if name == "JPEG" and image.fp is not None:
        check_jpeg_scans(data, image.fp.tell())
    return image


def _check_size(size: tuple[int, int], limits: LimitSettings) -> None:
    width, height = size
    if width * height > limits.max_megapixels * 1_000_000:
        raise TooLarge(
            f"{width} x {height} pixels, more than {limits.max_megapixels} megapixels; "
            "raise MASKMILL_LIMITS__MAX_MEGAPIXELS to allow it"
        )
    if max(size) > MAX_SIDE:
        raise TooLarge(f"{width} x {height} pixels: no side may exceed {MAX_SIDE}; cut it into parts")


def _refuse_preview(image: TiffImageFile) -> None:
    """Many camera raw formats are TIFFs whose first page is a thumbnail: its mask would be of no use to anyone."""
    kind = image.tag_v2.get(_TIFF_SUBFILE_TYPE, 0)
    if _TIFF_DNG_VERSION in image.tag_v2 or (isinstance(kind, int) and kind & _REDUCED_RESOLUTION):
        raise UnsupportedFormat("camera raw, or a TIFF that begins with a preview, is not read here; develop it first")


def _exif(image: ImageFile.ImageFile, policy: ExifPolicy) -> tuple[object, bytes, tuple[str, ...]]:
    """Orientation, EXIF to carry, and what could not be read of it."""
    try:
        exif = image.getexif()
        orientation = exif.get(Base.Orientation, 1)
    except HOSTILE:
        return 1, b"", ("EXIF not readable: taken as upright",)
    try:
        return orientation, carried(exif, policy), ()
    except HOSTILE:
        return orientation, b"", ("EXIF not well-formed: not kept",)


@contextmanager
def _image_errors(name: str) -> Iterator[None]:
    """Turn what Pillow raises on hostile bytes into the error that costs one image."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{name}: {error}") from error
    except HOSTILE as error:
        raise _translated(name, error) from error


def _translated(name: str, error: BaseException) -> ImageError:
    reason = (str(error) or type(error).__name__)[:200]
    if any(word in reason.lower() for word in _UNSUPPORTED):
        return UnsupportedFormat(f"{name} of a kind that is not read here ({reason}); save it as 8-bit JPEG or PNG")
    return Undecodable(f"{name} is truncated or broken ({reason}); export or upload it again")


def _settle_process_wide(limits: LimitSettings) -> None:
    """See the module docstring."""
    if _PILLOW_WARNINGS not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    pixels, guard = limits.max_megapixels * 1_000_000, Image.MAX_IMAGE_PIXELS
    if guard is not None and pixels > 2 * guard:
        Image.MAX_IMAGE_PIXELS = pixels
