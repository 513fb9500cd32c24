"""Decode the bytes of an object to a `Picture`: the first step for every image, and the one that sees untrusted bytes.

    signature allow-listed? ── read the header ── within the limits? ── decode the pixels ── upright ── 8-bit RGB

`worker.images.colour` describes the conversion of each pixel mode. In addition:

- EXIF orientation (also of PNG, WebP, AVIF and TIFF) is applied, so width and height are as a viewer shows them. Other
  metadata is dropped, except an ICC profile that describes the RGB pixels, and EXIF if `DecodeTarget` asks for it.
- A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (scaled inverse DCT) if that is enough for `DecodeTarget`.
- Animations (GIF, PNG, WebP, AVIF), multi-page TIFF and MPO: the first picture is used.
- HEIC and HEIF are read if the extra `heif` is installed (`worker.images.heif`).
- SVG, PDF, camera raw and others are refused by name, and so is a TIFF whose first page is only a preview.
- Truncated files are refused, but a JPEG or PNG that lacks only what follows its last pixel is read, with a note.
- PNG checksums are verified; JPEG has none, so a flipped bit in a JPEG goes undetected. Metadata never decides over
  pixels: what is damaged or too large of it is dropped, with a note (`worker.images.png_file`).

Only seven of Pillow's parsers, and the one of the extra, can run. They are called directly instead of through
`Image.open`. That also keeps their error messages, which `Image.open` replaces by "cannot identify".

Two process-wide settings are changed here, each at most once. Warnings from Pillow's modules are ignored: they report
metadata (broken EXIF, odd transparency) that is dropped anyway, and `catch_warnings` is not thread-safe. Pillow's limit
against decompression bombs is raised if the operator allows more than twice its value (the point at which Pillow
refuses); it is never lowered.
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

import numpy as np
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ExifTags import Base
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from worker.contract.errors import ImageError, TooLarge, Undecodable, UnsupportedFormat
from worker.contract.outputs import ExifPolicy
from worker.contract.settings import LimitSettings
from worker.images import tiff_file
from worker.images.colour import to_rgb
from worker.images.colour_space import Signalled, avif_colours
from worker.images.exif import filter_exif
from worker.images.gif_file import check_blocks
from worker.images.headers import sniff, webp_size
from worker.images.heif import check_tiles, open_heif
from worker.images.heif_items import coded_pixels
from worker.images.jpeg_file import completions, jpeg_facts, without
from worker.images.memory import Header
from worker.images.png_file import DAMAGED_METADATA, MISSING_END, PngFile, read_png
from worker.images.tiff_file import TiffTags
from worker.images.upright import Box, orient, orient_box

MAX_RUN_LENGTH_BYTES = 4 << 20
"""Limit of a run-length BMP, which Pillow decodes in Python: about a second, and one for four pixels of each byte."""

MAX_SIDE = 65_535
"""Maximum side in pixels: what a JPEG header can express (16 bits; ITU-T T.81, B.2.2)."""

PILLOW_ERRORS = (
    OSError,  # most of Pillow: truncated or broken data, and data refused by libtiff, libwebp or zlib
    SyntaxError,  # Pillow's parsers: a malformed header, checksum, chunk or EXIF block
    ValueError,  # a field out of range, text chunks beyond Pillow's memory limit, UnicodeError
    TypeError,  # a TIFF tag or PNG text of the wrong type: a float offset, a string as the transparent colour
    LookupError,  # an index or tag that the header refers to is missing: a PNG without image data
    RuntimeError,  # libavif: missing items, colour planes that cannot be decoded
    ArithmeticError,  # a BigTIFF offset beyond 63 bits (OverflowError), an AVIF time scale of 0
    EOFError,  # an animation without a first frame
    struct.error,  # a truncated EXIF block
    zlib.error,  # a truncated compressed chunk
)
"""Exceptions that Pillow raises on hostile bytes, found by mutating valid files of each format or in its source.

`MemoryError` is not included: sizes are checked before pixels are allocated, so it is not the image's fault.
`AttributeError` is not included either: no mutation raised it, and catching it would hide bugs of this module.
"""

_PARSERS: dict[str, Callable[[IO[bytes], str], ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
    "AVIF": AvifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
}
_UNSUPPORTED = (
    "unsupported",
    "not yet supported",
    "cannot handle",
    "unknown pixel mode",
    "unknown raw mode",
    "not been built in",
)
_TIFF_ICC_PROFILE = 34675
_REDUCED_RESOLUTION = 1  # bit 0 of NewSubfileType, TIFF 6.0, section 8
_PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_MIB = 1 << 20
_BMP_COMPRESSION = 30  # position in the file
_RUN_LENGTH = (1, 2)  # BI_RLE8, BI_RLE4
_WORD = 16  # bits
_BMP_VERSION_3, _BMP_BIT_FIELDS = 56, (3, 6)
_OPAQUE_MODES = ("1", "L", "RGB", "CMYK", "YCbCr", "LAB")
_CODED_MARGIN = 1.25
"""Coded pixels for each pixel shown, at most: tiles and blocks reach beyond the edge of the picture."""

OVERSAMPLING = 1.19
"""Minimum side of a scaled decode, as a multiple of the side that is needed.

The inverse DCT at 1/2 averages pixels differently from an antialiased resize from full size. With this margin, the
resized values of the test photographs differ by at most 2.5 of 255 in the mean (typically 1), and 99 % of them by at
most 15; with a margin of 1.0 the figures are 3.5 and 22. This is the largest margin at which 2 megapixels (1632 x 1224)
are still decoded at 1/2 for a network of 512.
"""


@dataclass(frozen=True)
class DecodeTarget:
    """The resolution and metadata that a decoded picture must provide.

    Attributes:
        short_side: sufficient pixels of the shorter side; None for full size.
        long_side: sufficient pixels of the longer side; None for full size.
        exif: which EXIF fields to keep.
    """

    short_side: int | None = None
    long_side: int | None = None
    exif: ExifPolicy = ExifPolicy.STRIP

    def scale(self, width: int, height: int) -> int:
        """Return the largest divisor of both sides, 8, 4, 2 or 1, that leaves enough pixels."""
        if self.short_side is None or self.long_side is None:
            return 1
        for scale in (8, 4, 2):
            if min(width, height) >= scale * self.short_side * OVERSAMPLING and (
                max(width, height) >= scale * self.long_side * OVERSAMPLING
            ):
                return scale
        return 1


FULL_SIZE = DecodeTarget()


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image, upright, 8 bits per channel.

    Attributes:
        rgb: mode RGB; the colours under a transparent `alpha` are as stored.
        alpha: mode L, same size; None when the input is opaque.
        icc_profile: profile of the values in `rgb`; None for sRGB or unknown.
        notes: deviations from what the file asks for, such as a profile that is not usable.
        exif: EXIF for the outputs; empty unless `DecodeTarget` asks for it.
        full_size: width and height of the picture if `rgb` was decoded smaller, else None.
        box: the part of `rgb` that the picture covers if `rgb` was decoded smaller, else None. The picture may cover
            only a fraction of the last column and row.
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
        """Return the width and height of the upright picture at full size, independent of the size of `rgb`."""
        return self.full_size or self.rgb.size

    @property
    def width(self) -> int:
        """Return the width of the upright picture in pixels."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Return the height of the upright picture in pixels."""
        return self.size[1]


def _ignore(header: Header) -> None:
    pass


def decode(
    data: bytes,
    limits: LimitSettings,
    target: DecodeTarget = FULL_SIZE,
    on_header: Callable[[Header], None] = _ignore,
) -> Picture:
    """Decode the first picture in `data`; a JPEG is decoded at a reduced size if `target` allows it.

    Args:
        data: the file.
        limits: of bytes and pixels.
        target: sufficient size, and which EXIF to keep.
        on_header: called before any pixel is decoded; what it raises ends the decoding.

    Raises:
        EmptyObject: `data` is empty.
        TooLarge: more bytes or, by the header, more pixels than `limits` allow, or a side above `MAX_SIDE`.
        UnsupportedFormat: the format or pixel mode is not supported.
        Undecodable: the data is not a picture, or is truncated or broken.
    """
    if len(data) > limits.max_object_mib * _MIB:
        raise TooLarge(
            f"{len(data):,} bytes, more than {limits.max_object_mib} MiB; "
            "increase MASKMILL_LIMITS__MAX_OBJECT_MIB to allow it"
        )
    name = sniff(data)
    _configure_process(limits)
    with _image_errors(name):
        opened = _open(name, data, limits)
        size, scale = opened.size, target.scale(*opened.size) if opened.may_shrink else 1
    on_header(opened.header(name, len(data), scale))
    with _image_errors(name):
        if scale > 1:
            opened.shrink(scale)
        pixels = opened.load()
        visible = opened.visible(pixels)
        orientation, exif, notes = _exif(opened, target.exif)
        upright = orient(pixels, orientation)
        colour = to_rgb(upright, None if visible is None else orient(visible, orientation), opened.signalled)
    for part in (colour.rgb, colour.alpha):
        if part is not None:
            part.info.clear()  # EXIF and other metadata; `rgb` may be the image that was read
    full_size = box = None
    if scale > 1:
        full_size = size if upright.size == pixels.size else (size[1], size[0])
        box = orient_box((0, 0, size[0] / scale, size[1] / scale), pixels.size, orientation)
    notes = (*opened.notes, *notes, *colour.notes)
    return Picture(colour.rgb, colour.alpha, colour.icc_profile, notes, exif, full_size, box)


class _Opened:
    """An image whose header was read and whose size is within the limits."""

    may_shrink = False
    signalled: Signalled | None = None
    coefficients = 0.0
    coded_pixels = 0
    versions = 1

    def __init__(self, name: str, data: bytes, limits: LimitSettings) -> None:
        self.notes: list[str] = []
        self.image = _PARSERS[name](io.BytesIO(data), "")
        self.size = self.image.size
        _check_size(self.size, limits)

    def header(self, name: str, file_bytes: int, scale: int) -> Header:
        """Return what decides over the memory of the picture."""
        return Header(
            name,
            *self.size,
            file_bytes,
            self.has_matte,
            scale,
            self.coefficients,
            self.coded_pixels,
            self.versions,
        )

    @property
    def has_matte(self) -> bool:
        """Whether the pixels may have a matte, by the header."""
        return self.image.mode not in _OPAQUE_MODES or "transparency" in self.image.info

    def shrink(self, scale: int) -> None:
        """Let `load` decode at a part of the size: 1/2, 1/4 or 1/8."""
        self.image.draft(self.image.mode, (self.size[0] // scale, self.size[1] // scale))

    def exif(self) -> Image.Exif:
        """Read the EXIF, after the pixels: it may follow them."""
        return self.image.getexif()

    def load(self) -> Image.Image:
        """Decode the pixels."""
        self.image.load()
        return self.image

    def visible(self, pixels: Image.Image) -> Image.Image | None:
        """Return what the file makes transparent by other means than an alpha channel: mode L, 0 or 255; or None."""
        return None


class _Jpeg(_Opened):
    def __init__(self, name: str, data: bytes, limits: LimitSettings) -> None:
        facts = jpeg_facts(data)
        data = without(data, facts.unneeded)
        super().__init__(name, data, limits)
        if facts.is_damaged:
            self.notes.append(DAMAGED_METADATA)
        # Files without an end are compared at full size, so that they have one outcome whatever the outputs are.
        self.may_shrink = facts.is_dct and facts.has_end
        self.coefficients = facts.coefficients
        self._versions = () if facts.has_end else completions(data)
        self.versions = max(1, len(self._versions))
        if self._versions and not facts.has_all_scans:
            raise Undecodable("JPEG is truncated (it lacks some of its scans); export or upload it again")

    def load(self) -> Image.Image:
        if not self._versions:
            return super().load()
        self.image, *others = (JpegImageFile(io.BytesIO(version), "") for version in self._versions)
        self.image.load()
        for other in others:
            other.load()
            if not np.array_equal(np.asarray(self.image), np.asarray(other)):
                raise Undecodable("JPEG is truncated (some of its pixels are missing); export or upload it again")
            other.close()
        self.notes.append(MISSING_END)
        return self.image


class _Png(_Opened):
    def __init__(self, name: str, data: bytes, limits: LimitSettings) -> None:
        self._file: PngFile = read_png(data)
        super().__init__(name, self._file.data, limits)
        self.notes += self._file.notes
        self.signalled = self._file.signalled
        if self._file.icc_profile:
            self.image.info["icc_profile"] = self._file.icc_profile
        needs_low = len(self._file.transparent) > 1 and self._file.depth == _WORD
        self._low = _low_bytes(self._file.data) if needs_low else None

    @property
    def has_matte(self) -> bool:
        return bool(self._file.transparent) or super().has_matte

    def visible(self, pixels: Image.Image) -> Image.Image | None:
        key, depth = self._file.transparent, self._file.depth
        if not key:
            return None
        if len(key) == 1:
            values = np.asarray(pixels.convert("L") if pixels.mode == "1" else pixels)
            # Pillow spreads levels of 1, 2 and 4 bits over 0 to 255. Bits of the key beyond the depth do not count.
            level = key[0] if depth == _WORD else (key[0] & (1 << depth) - 1) * 255 // ((1 << depth) - 1)
            return Image.fromarray(np.where(values == level, 0, 255).astype(np.uint8))
        words = np.array(key, np.uint16)
        same = (np.asarray(pixels) == (words >> 8 if depth == _WORD else words & 255).astype(np.uint8)).all(axis=2)
        if self._low is not None:
            same &= (np.asarray(self._low) == (words & 255).astype(np.uint8)).all(axis=2)
        return Image.fromarray(np.where(same, 0, 255).astype(np.uint8))


def _low_bytes(data: bytes) -> Image.Image | None:
    """Open a PNG of 16 bits so that its low bytes are decoded: Pillow keeps the first of two bytes, here the second."""
    image = PngImageFile(io.BytesIO(data), "")
    if not image.tile or image.tile[0].args != "RGB;16B":
        return None
    image.tile = [tile._replace(args="RGB;16L") for tile in image.tile]
    return image


class _Bmp(_Opened):
    def __init__(self, name: str, data: bytes, limits: LimitSettings) -> None:
        # Headers of version 3 and later have a mask of the alpha at 66, which counts for bit fields. Pillow reads the
        # alpha of 32 bits, but drops that of 16.
        header, bits, compression, alpha = struct.unpack_from("<I10xHI32xI", data.ljust(70, b"\0"), 14)
        if header >= _BMP_VERSION_3 and bits == _WORD and compression in _BMP_BIT_FIELDS and alpha:
            raise UnsupportedFormat("a BMP of 16 bits with transparency is not supported; save it as 32-bit BMP or PNG")
        super().__init__(name, data, limits)
        is_run_length = len(data) > _BMP_COMPRESSION and data[_BMP_COMPRESSION] in _RUN_LENGTH
        if is_run_length and max(len(data), self.size[0] * self.size[1] // 4) > MAX_RUN_LENGTH_BYTES:
            raise UnsupportedFormat(
                f"a run-length BMP of more than {MAX_RUN_LENGTH_BYTES >> 20} MiB or "
                f"{4 * MAX_RUN_LENGTH_BYTES // 1_000_000} megapixels is not supported; save it as PNG"
            )


class _Gif(_Opened):
    def __init__(self, name: str, data: bytes, limits: LimitSettings) -> None:
        check_blocks(data)
        super().__init__(name, data, limits)

    def visible(self, pixels: Image.Image) -> Image.Image | None:
        return self._frame

    def load(self) -> Image.Image:
        # The first frame may cover a part of the screen; the rest shows what lies behind the picture.
        box = self.image.tile[0].extents if self.image.tile else None
        self._frame = None
        if box is not None and box != (0, 0, *self.image.size):
            self._frame = Image.new("L", self.image.size)
            self._frame.paste(255, box)
        return super().load()


class _Webp(_Opened):
    def __init__(self, name: str, data: bytes, limits: LimitSettings) -> None:
        if size := webp_size(data):
            _check_size(size, limits)
        super().__init__(name, data, limits)


class _Avif(_Opened):
    def __init__(self, name: str, data: bytes, limits: LimitSettings) -> None:
        super().__init__(name, data, limits)
        self.coded_pixels = _check_coded_size(data, limits)
        # Pillow has put irot and imir, which alone turn an AVIF, into EXIF; it would fall back to XMP.
        self.image.info.pop("xmp", None)
        if "icc_profile" not in self.image.info:
            self.signalled = avif_colours(data)


class _Heif(_Opened):
    def __init__(self, name: str, data: bytes, limits: LimitSettings) -> None:
        self.notes, self._data = [], data
        self.image = open_heif(name, data)
        self.size = self.image.size
        _check_size(self.size, limits)
        self.coded_pixels = _check_coded_size(data, limits)
        self.image.info.pop("xmp", None)  # its own boxes alone turn it, and have been applied
        if "icc_profile" not in self.image.info:
            self.signalled = avif_colours(data)

    def load(self) -> Image.Image:
        self.image.load()
        if self.image.size != self.size:
            raise Undecodable("HEIC whose pixels have another size than its header says; export or upload it again")
        check_tiles(self._data, self.image)
        return self.image


class _Tiff(_Opened):
    def __init__(self, name: str, data: bytes, tags: TiffTags, limits: LimitSettings) -> None:
        try:
            super().__init__(name, data, limits)
        except SyntaxError as error:
            if "unknown" not in str(error):
                raise
            raise UnsupportedFormat(
                f"this kind of TIFF ({tags.in_words()}) is not supported; save it as 8-bit JPEG or PNG"
            ) from error
        _refuse_preview(tags)


class _PlanarTiff(_Opened):
    """A TIFF that Pillow reads plane by plane."""

    def __init__(self, data: bytes, tags: TiffTags, limits: LimitSettings) -> None:
        self.notes = []
        self._data, self._tags = data, tags
        self.size = tags.first(tiff_file.WIDTH, 0), tags.first(tiff_file.HEIGHT, 0)
        _check_size(self.size, limits)
        _refuse_preview(tags)

    @property
    def has_matte(self) -> bool:
        return True

    def exif(self) -> Image.Exif:
        exif = Image.Exif()
        vars(exif).update(endian=self._tags.order, bigtiff=self._tags.is_big)
        exif.load_from_fp(io.BytesIO(self._data), self._tags.offset)
        return exif

    def load(self) -> Image.Image:
        pixels = tiff_file.read_planes(self._data, self._tags, _grey_tiff)
        profile = self.exif().get(_TIFF_ICC_PROFILE)
        if isinstance(profile, bytes):
            pixels.info["icc_profile"] = profile
        return pixels


def _open_tiff(name: str, data: bytes, limits: LimitSettings) -> _Opened:
    tags = tiff_file.read_tags(data)
    tiff_file.check_layout(tags)
    data = tiff_file.without_malformed(data, tags)
    opened = _PlanarTiff(data, tags, limits) if tags.is_planar else _Tiff(name, data, tags, limits)
    if tags.malformed:
        opened.notes.append(DAMAGED_METADATA)
    return opened


def _grey_tiff(data: bytes) -> Image.Image:
    image = TiffImageFile(io.BytesIO(data), "")
    image.load()
    return image


_OPENERS: dict[str, Callable[[str, bytes, LimitSettings], _Opened]] = {
    "JPEG": _Jpeg,
    "PNG": _Png,
    "GIF": _Gif,
    "WEBP": _Webp,
    "AVIF": _Avif,
    "HEIC": _Heif,
    "HEIF": _Heif,
    "TIFF": _open_tiff,
    "BMP": _Bmp,
}


def _open(name: str, data: bytes, limits: LimitSettings) -> _Opened:
    """Open the image without decoding its pixels, and run all checks that need only the header."""
    return _OPENERS.get(name, _Opened)(name, data, limits)


def _check_size(size: tuple[int, int], limits: LimitSettings) -> None:
    width, height = size
    if width * height > limits.max_megapixels * 1_000_000:
        raise TooLarge(
            f"{width} x {height} pixels, more than {limits.max_megapixels} megapixels; "
            "increase MASKMILL_LIMITS__MAX_MEGAPIXELS to allow it"
        )
    if max(size) > MAX_SIDE:
        raise TooLarge(f"{width} x {height} pixels: no side may exceed {MAX_SIDE}; split the picture into parts")


def _check_coded_size(data: bytes, limits: LimitSettings) -> int:
    """Refuse an AVIF or HEIC whose coded data has more pixels than its header may state, but for the tiles' edges.

    Returns the coded pixels of colours or matte, whichever has more.
    """
    found, most = coded_pixels(data), limits.max_megapixels * 1_000_000 * _CODED_MARGIN
    for pixels in found:
        if pixels > most:
            raise TooLarge(
                f"{pixels:,} pixels in its coded data, more than {limits.max_megapixels} megapixels; "
                "increase MASKMILL_LIMITS__MAX_MEGAPIXELS to allow it"
            )
    return max(found)


def _refuse_preview(tags: TiffTags) -> None:
    """Refuse camera raw formats that are TIFFs with a thumbnail as first page: a mask of the thumbnail is useless."""
    if tiff_file.DNG_VERSION in tags.values or tags.first(tiff_file.SUBFILE_TYPE, 0) & _REDUCED_RESOLUTION:
        raise UnsupportedFormat("camera raw, or a TIFF that begins with a preview, is not supported; develop it first")


def _exif(opened: _Opened, policy: ExifPolicy) -> tuple[object, bytes, tuple[str, ...]]:
    """Return the orientation, the EXIF for outputs, and notes on what could not be read."""
    try:
        exif = opened.exif()
        orientation = exif.get(Base.Orientation, 1)
    except PILLOW_ERRORS:
        return 1, b"", ("EXIF not readable: orientation assumed upright",)
    try:
        return orientation, filter_exif(exif, policy), ()
    except PILLOW_ERRORS:
        return orientation, b"", ("EXIF malformed: not kept",)


@contextmanager
def _image_errors(name: str) -> Iterator[None]:
    """Convert Pillow's exceptions on hostile bytes to an `ImageError`, which fails one image only."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise TooLarge(f"{name}: {error}") from error
    except PILLOW_ERRORS as error:
        raise _image_error(name, error) from error


def _image_error(name: str, error: BaseException) -> ImageError:
    reason = (str(error) or type(error).__name__)[:200]
    if any(word in reason.lower() for word in _UNSUPPORTED):
        return UnsupportedFormat(f"this kind of {name} is not supported ({reason}); save it as 8-bit JPEG or PNG")
    return Undecodable(f"{name} is truncated or broken ({reason}); export or upload it again")


def _configure_process(limits: LimitSettings) -> None:
    """Ignore Pillow's warnings and raise its pixel limit if `limits` need it; see the module docstring."""
    if _PILLOW_WARNINGS not in warnings.filters:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    pixels, pillow_limit = limits.max_megapixels * 1_000_000, Image.MAX_IMAGE_PIXELS
    if pillow_limit is not None and pixels > 2 * pillow_limit:
        Image.MAX_IMAGE_PIXELS = pixels
