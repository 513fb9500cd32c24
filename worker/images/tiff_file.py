"""Read the tags of a TIFF before a decoder sees it, and take a TIFF of separate planes apart.

Pillow reads pixels with their channels together. Of a file that stores one plane per channel (PlanarConfiguration 2) it
reads some kinds wrong, so here each plane becomes a grey TIFF of its own, which Pillow reads whatever its compression,
and the planes are put together afterwards.

Tags and their values are those of TIFF 6.0; numbers of compressions that it lacks are those of libtiff and of the
makers of the formats.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops

from worker.contract.errors import TooLarge, Undecodable, UnsupportedFormat

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR, PREDICTOR = 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
EXTRA_SAMPLES, SAMPLE_FORMAT, JPEG_TABLES = 338, 339, 347
SUBFILE_TYPE, DNG_VERSION = 254, 50706
SUBSAMPLING, BLACK_AND_WHITE = 530, 532

_ARRAYS = frozenset((BITS, STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES, EXTRA_SAMPLES, SAMPLE_FORMAT))
_READ = _ARRAYS | {
    *(WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, FILL_ORDER, SAMPLES, ROWS_PER_STRIP, PLANAR, PREDICTOR),
    *(TILE_WIDTH, TILE_HEIGHT, JPEG_TABLES, SUBFILE_TYPE, DNG_VERSION, SUBSAMPLING, BLACK_AND_WHITE),
}
"""Only these are read: a hostile file may name 65,536 tags, each with a million values."""

_TEXT, _BYTES, _UNKNOWN = 2, (1, 7), 0xFFFF
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT, _XMP = 282, 283, 296, 700

_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 16: "Q", 18: "Q"}
_READABLE = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32809, 32946, 34925, 50000))
_COMPRESSIONS = {
    9: "JBIG",
    10: "JBIG",
    22610: "JPEG XR",
    32766: "NeXT",
    32895: "IT8",
    32908: "Pixar",
    32909: "Pixar",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34713: "Nikon NEF",
    34887: "LERC",
    34892: "lossy JPEG of DNG",
    34933: "PNG",
    34934: "JPEG XR",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_PHOTOMETRICS = {
    0: "grey",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "colour filter array",
    34892: "linear raw",
}
_YCBCR, _UNCOMPRESSED, _JPEG = 6, 1, (6, 7)
_FULL_RANGE = (0, 255, 128, 255, 128, 255)
_RATIONAL = 5
_SIGNED = 2
_SAMPLE_FORMATS = {2: "signed", 3: "float", 5: "complex", 6: "complex"}
_ALPHA_KINDS = {1: "premultiplied", 2: "straight"}
_REMEDY = "save it as 8-bit JPEG or PNG"
_BROKEN = "TIFF is truncated or broken"
_AGAIN = "export or upload it again"
_MAX_VALUES = 1 << 20

MAX_PIECES = 1 << 17
"""Limit of strips and tiles: Pillow keeps an object for each. One strip for each row of the largest picture is half."""

_SPARE_PIECES = 1024
"""Strips or tiles beyond those that the size of the picture needs: some programs write a few too many."""

_MAX_SAMPLES = 64
_SMALL_TILE = 1 << 20
_MOST_TILE_PIXELS = 4
"""Pixels of a tile for each pixel of the picture, at most, if it has more than `_SMALL_TILE`: decoders hold a tile."""


class _Kind(NamedTuple):
    """How the planes of a photometric interpretation make a picture."""

    mode: str
    channels: int


_KINDS = {0: _Kind("L", 1), 1: _Kind("L", 1), 2: _Kind("RGB", 3), 5: _Kind("CMYK", 4), 8: _Kind("LAB", 3)}


@dataclass(frozen=True)
class TiffTags:
    """The tags of the first page that hold numbers, as stored."""

    order: str
    """Byte order as in `struct`: `<` or `>`."""

    values: dict[int, tuple[int, ...]]
    offset: int
    """Of the page in the file, in bytes."""

    is_big: bool
    """Whether it is a BigTIFF."""

    malformed: tuple[int, ...] = ()
    """Positions of metadata of a wrong type, for which Pillow would refuse the picture."""

    def first(self, tag: int, default: int) -> int:
        """Return the only or first value of a tag."""
        return (self.values.get(tag) or (default,))[0]

    @property
    def is_planar(self) -> bool:
        """Whether `read_planes` must read it: channels apart, or dark grey of 16 bits, which Pillow does not invert."""
        if self.first(SAMPLES, 1) > 1:
            return self.first(PLANAR, 1) == 2  # noqa: PLR2004 - separate
        return self.first(PHOTOMETRIC, 1) == 0 and self.first(BITS, 1) == 16  # noqa: PLR2004 - bits

    def in_words(self) -> str:
        """Describe the pixels: `4 x 16 bits, CMYK`."""
        photometric = self.first(PHOTOMETRIC, -1)
        words = [f"{self.first(SAMPLES, 1)} x {self.first(BITS, 1)} bits"]
        words.append(_PHOTOMETRICS.get(photometric, f"photometric {photometric}"))
        words += [_SAMPLE_FORMATS[kind] for kind in self.values.get(SAMPLE_FORMAT, ())[:1] if kind in _SAMPLE_FORMATS]
        words += ["alpha"] if set(_ALPHA_KINDS) & set(self.values.get(EXTRA_SAMPLES, ())) else []
        return ", ".join(words)


def read_tags(data: bytes) -> TiffTags:
    """Read the tags of the first page, and refuse what no decoder here reads.

    Raises:
        UnsupportedFormat: big-endian BigTIFF, signed values, or a compression or kind of YCbCr that is not supported.
        Undecodable: the tags cannot be read.
    """
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    if is_big and order == ">":
        raise UnsupportedFormat("a big-endian BigTIFF is not supported; save it as little-endian, or as PNG")
    try:
        (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, 8 if is_big else 4)
        values, malformed = _read_page(data, offset, order, is_big=is_big)
        tags = TiffTags(order, values, offset, is_big, malformed)
    except (struct.error, OverflowError) as error:
        raise Undecodable(f"{_BROKEN} (its tags are cut off); {_AGAIN}") from error
    compression = tags.first(COMPRESSION, 1)
    if compression not in _READABLE:
        name = _COMPRESSIONS.get(compression, f"number {compression}")
        raise UnsupportedFormat(f"a TIFF with the compression {name} is not supported; {_REMEDY}")
    if _SIGNED in tags.values.get(SAMPLE_FORMAT, ()):
        raise UnsupportedFormat(f"signed values of a TIFF ({tags.in_words()}) have no agreed white; {_REMEDY}")
    if tags.first(PHOTOMETRIC, -1) == _YCBCR and compression not in _JPEG:
        _refuse_unreadable_ycbcr(tags)
    return tags


def _refuse_unreadable_ycbcr(tags: TiffTags) -> None:
    """Refuse YCbCr that would be read wrong.

    Of uncompressed files Pillow reads the bytes as they lie, as if every pixel had its own colour and black were 0: of
    blocks with a common colour it reads on into whatever follows. Packed ones go to libtiff, which mixes up the values
    of a block of 4 x 4 pixels in the corner.
    """
    factors = tags.values.get(SUBSAMPLING, (2, 2))
    numbers = tags.values.get(BLACK_AND_WHITE, ())
    levels = tuple(a / b if b else 0.0 for a, b in zip(numbers[::2], numbers[1::2], strict=False))
    plain = factors == (1, 1) and levels in ((), _FULL_RANGE)
    if factors == (4, 4) or (tags.first(COMPRESSION, 1) == _UNCOMPRESSED and not plain):
        words = " x ".join(map(str, factors))
        raise UnsupportedFormat(
            f"a TIFF of this kind of YCbCr (one colour for {words} pixels, compression "
            f"{tags.first(COMPRESSION, 1)}) is not supported; {_REMEDY}"
        )


def check_layout(tags: TiffTags) -> None:
    """Check what strips and tiles cost a decoder, for a picture whose size is within the limits.

    Raises:
        TooLarge: a tile is far larger than the picture, or there are more pieces than `MAX_PIECES`.
        Undecodable: there are far more strips, tiles or samples than the picture can have.
    """
    width, height, samples = tags.first(WIDTH, 0), tags.first(HEIGHT, 0), tags.first(SAMPLES, 1)
    planes = samples if tags.first(PLANAR, 1) == 2 else 1  # noqa: PLR2004 - separate
    if max(samples, len(tags.values.get(BITS, ()))) > _MAX_SAMPLES:
        raise Undecodable(f"{_BROKEN} ({samples} samples per pixel); {_AGAIN}")
    across, down = tags.first(TILE_WIDTH, 0), tags.first(TILE_HEIGHT, 0)
    if across and down:
        pieces = math.ceil(width / across) * math.ceil(height / down) * planes
        if across * down > max(_SMALL_TILE, _MOST_TILE_PIXELS * width * height):
            raise TooLarge(f"a TIFF with tiles of {across} x {down} pixels; save it with tiles of at most 1024 x 1024")
    else:
        pieces = math.ceil(height / (tags.first(ROWS_PER_STRIP, 0) or height or 1)) * planes
    most = max(len(tags.values.get(tag, ())) for tag in (STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES))
    if max(pieces, most) > MAX_PIECES:
        raise TooLarge(f"a TIFF of {max(pieces, most):,} strips or tiles; save it with at most {MAX_PIECES:,}")
    if most > pieces + _SPARE_PIECES:
        raise Undecodable(f"{_BROKEN} ({most:,} strips or tiles where it needs {pieces:,}); {_AGAIN}")


def without_malformed(data: bytes, tags: TiffTags) -> bytes:
    """Return a TIFF in which metadata of a wrong type has a type that readers skip."""
    if not tags.malformed:
        return data
    changed = bytearray(data)
    for at in tags.malformed:
        struct.pack_into(f"{tags.order}H", changed, at + 2, _UNKNOWN)
    return bytes(changed)


def _read_page(data: bytes, at: int, order: str, *, is_big: bool) -> tuple[dict[int, tuple[int, ...]], tuple[int, ...]]:
    """Return the values of the tags in `_READ`, and the positions of malformed metadata."""
    offset_code, count_code, entry_bytes, inline = ("Q", "Q", 20, 8) if is_big else ("I", "H", 12, 4)
    (count,) = struct.unpack_from(order + count_code, data, at)
    at += struct.calcsize(count_code)
    if count > _MAX_VALUES:
        raise Undecodable(f"{_BROKEN} ({count} tags); {_AGAIN}")
    found: dict[int, tuple[int, ...]] = {}
    malformed: list[int] = []
    for entry in range(at, at + count * entry_bytes, entry_bytes):
        tag, kind, number = struct.unpack_from(f"{order}HH{offset_code}", data, entry)
        code = _TYPES.get(kind)
        if tag == BLACK_AND_WHITE and kind == _RATIONAL:
            code, number = "I", 2 * number  # numerator and denominator
        if _is_malformed(tag, kind):
            malformed.append(entry)
        if tag not in _READ or code is None or tag in found:
            continue
        if number > _MAX_VALUES:
            raise Undecodable(f"{_BROKEN} ({number:,} values in one tag); {_AGAIN}")
        value = entry + entry_bytes - inline
        if number * struct.calcsize(code) > inline:
            (value,) = struct.unpack_from(order + offset_code, data, value)
            if value + number * struct.calcsize(code) > len(data):
                raise Undecodable(f"{_BROKEN} (its tags are cut off); {_AGAIN}")
        found[tag] = struct.unpack_from(f"{order}{number}{code}", data, value)
    return found, tuple(malformed)


def _is_malformed(tag: int, kind: int) -> bool:
    if tag == _XMP:
        return kind not in _BYTES
    return tag in (_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT) and kind in (_TEXT, *_BYTES)


def read_planes(data: bytes, tags: TiffTags, open_grey: Callable[[bytes], Image.Image]) -> Image.Image:
    """Decode a TIFF of separate planes.

    Args:
        data: the whole file.
        tags: from `read_tags`, of a file that is planar.
        open_grey: decodes a grey TIFF of 8 or 16 bits to mode L or I;16.

    Returns:
        Image of mode L, LA, RGB, RGBA, CMYK or LAB, not yet upright; colours of 16 bits are reduced to their high byte.

    Raises:
        UnsupportedFormat: a kind of pixels that is not supported.
        Undecodable: a plane is missing or cut off.
    """
    kind = _KINDS.get(tags.first(PHOTOMETRIC, -1))
    bits, samples = set(tags.values.get(BITS, (1,))), tags.first(SAMPLES, 1)
    plain = set(tags.values.get(SAMPLE_FORMAT, (1,))) <= {1, 4}  # unsigned, or undefined
    extra = tags.values.get(EXTRA_SAMPLES)
    if kind is None or not plain or bits not in ({8}, {16}) or samples < kind.channels:
        raise UnsupportedFormat(f"a TIFF of separate planes ({tags.in_words()}) is not supported; {_REMEDY}")
    alpha_at, alpha_kind = _alpha(kind, samples, extra)
    wanted = [*range(kind.channels), *([] if alpha_at is None else [alpha_at])]
    if alpha_at is not None and kind.mode not in ("L", "RGB"):
        raise UnsupportedFormat(f"a TIFF of separate planes ({tags.in_words()}) is not supported; {_REMEDY}")
    planes = [_as_8_bits(open_grey(_plane(data, tags, samples, index)), kind) for index in wanted]
    channels, alpha = planes[: kind.channels], planes[kind.channels :]
    if tags.first(PHOTOMETRIC, 1) == 0:
        channels = [ImageChops.invert(channel) for channel in channels]
    if kind.mode == "LAB":  # a* and b* are signed; Pillow stores them with an offset of 128
        channels[1:] = [channel.point([value ^ 128 for value in range(256)]) for channel in channels[1:]]
    if alpha_kind == "premultiplied":
        grey = kind.mode == "L"
        merged = Image.merge("RGBa", [*(channels * 3 if grey else channels), *alpha]).convert("RGBA")
        return Image.merge("LA", (merged.getchannel("R"), merged.getchannel("A"))) if grey else merged
    return Image.merge(kind.mode + ("A" if alpha else ""), [*channels, *alpha])


def _alpha(kind: _Kind, samples: int, extra: Sequence[int] | None) -> tuple[int | None, str]:
    """Return index and kind of the plane that holds the alpha; a fourth one beside RGB that is not named counts."""
    if extra is None:
        return (kind.channels, "straight") if kind.mode == "RGB" and samples > kind.channels else (None, "")
    for index, value in enumerate(extra[: samples - kind.channels]):
        if value in _ALPHA_KINDS:
            return kind.channels + index, _ALPHA_KINDS[value]
    return None, ""


def _as_8_bits(plane: Image.Image, kind: _Kind) -> Image.Image:
    if plane.mode == "L":
        return plane
    values = np.asarray(plane).astype(np.uint32)
    levels = (values + 128) // 257 if kind.mode == "L" else values >> 8
    return Image.fromarray(levels.astype(np.uint8))


def _plane(data: bytes, tags: TiffTags, samples: int, index: int) -> bytes:
    """Return one plane as a grey TIFF of its own."""
    width, height, bits = tags.first(WIDTH, 0), tags.first(HEIGHT, 0), tags.first(BITS, 8)
    layout: dict[int, Sequence[int]] = {}
    if TILE_OFFSETS in tags.values:
        across, down = tags.first(TILE_WIDTH, 0), tags.first(TILE_HEIGHT, 0)
        if not across or not down:
            raise Undecodable(f"{_BROKEN} (no size of its tiles); {_AGAIN}")
        pieces, piece_rows = math.ceil(width / across) * math.ceil(height / down), down
        layout = {TILE_WIDTH: (across,), TILE_HEIGHT: (down,)}
        offset_tag, bytes_tag, row = TILE_OFFSETS, TILE_BYTES, across
    else:
        piece_rows = min(tags.first(ROWS_PER_STRIP, height) or height, height)
        pieces, row = math.ceil(height / piece_rows), width
        layout = {ROWS_PER_STRIP: (piece_rows,)}
        offset_tag, bytes_tag = STRIP_OFFSETS, STRIP_BYTES
    offsets, counts = tags.values.get(offset_tag, ()), tags.values.get(bytes_tag)
    if counts is None and tags.first(COMPRESSION, 1) == 1:
        last_rows = piece_rows if offset_tag == TILE_OFFSETS else height - (pieces - 1) * piece_rows
        rows = [piece_rows] * (pieces - 1) + [last_rows]
        counts = tuple(row * count * bits // 8 for count in rows * samples)
    if counts is None or not len(offsets) == len(counts) == pieces * samples or sum(counts) > len(data):
        raise Undecodable(f"{_BROKEN} (it lacks some of its planes); {_AGAIN}")
    begin = index * pieces
    parts = [data[at : at + size] for at, size in zip(offsets, counts, strict=True)][begin : begin + pieces]
    if any(len(part) < size for part, size in zip(parts, counts[begin:], strict=False)):
        raise Undecodable(f"{_BROKEN} (a plane is cut off); {_AGAIN}")
    layout |= {WIDTH: (width,), HEIGHT: (height,), BITS: (bits,), PHOTOMETRIC: (1,), SAMPLES: (1,)}
    layout |= {tag: tags.values[tag] for tag in (COMPRESSION, FILL_ORDER, JPEG_TABLES) if tag in tags.values}
    if PREDICTOR in tags.values:
        layout[PREDICTOR] = tags.values[PREDICTOR][:1]
    return _grey_tiff(tags.order, layout, offset_tag, bytes_tag, parts)


def _grey_tiff(
    order: str, layout: dict[int, Sequence[int]], offset_tag: int, bytes_tag: int, parts: Sequence[bytes]
) -> bytes:
    """Write a TIFF: header, pieces of the picture, values that do not fit into an entry, and the directory."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    at, offsets = 8, []
    for part in parts:
        offsets.append(at)
        at += len(part)
    layout = {**layout, offset_tag: offsets, bytes_tag: [len(part) for part in parts]}
    values, entries = b"", b""
    for tag in sorted(layout):
        kind, code = (7, "B") if tag == JPEG_TABLES else (4, "I")
        packed = struct.pack(f"{order}{len(layout[tag])}{code}", *layout[tag])
        if tag in (BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, FILL_ORDER, PREDICTOR):  # must be short integers
            kind, packed = 3, struct.pack(f"{order}H", layout[tag][0])
        count = len(packed) if kind == 7 else len(layout[tag])  # noqa: PLR2004 - bytes
        if len(packed) > 4:  # noqa: PLR2004 - bytes of an entry's value
            packed, values = struct.pack(f"{order}I", at + len(values)), values + packed
        entries += struct.pack(f"{order}HHI", tag, kind, count) + packed.ljust(4, b"\0")
    directory = at + len(values)
    head = magic + struct.pack(f"{order}I", directory)
    tail = struct.pack(f"{order}H", len(layout)) + entries + bytes(4)
    return b"".join((head, *parts, values, tail))
