"""TIFF: bits, photometric interpretations, planes, strips and tiles, compressions, predictors, byte orders, alpha.

Tags, their values and the compressions are those of TIFF 6.0. Files with a compression that only libtiff can write
(CCITT, JPEG) come from Pillow.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from support.picture_files import base
from support.picture_files.base import Bytes, Levels, PictureFile

_COMPRESSIONS = {"none": 1, "LZW": 5, "deflate": 8, "old deflate": 32946, "PackBits": 32773}
_TYPES = {"B": 1, "H": 3, "I": 4, "Q": 16, "R": 5}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_SPOT, _PREMULTIPLIED, _STRAIGHT = 0, 1, 2
_TILE = 16
_ROWS = 7
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))

Tags = dict[int, tuple[str, Sequence[int]]]
"""Tag -> type and values."""


class _Kind(NamedTuple):
    name: str
    photometric: int
    bits: int
    channels: int
    extra: tuple[int, ...] = ()
    """Values of ExtraSamples."""

    sample_format: int = _UNSIGNED
    unnamed: int = 0
    """Number of further samples, which no ExtraSamples names."""


class _Way(NamedTuple):
    """How the pixels of a file are stored."""

    planar: bool
    compression: str
    predictor: int
    tiled: bool
    order: str
    fill: int
    details: str


def _in_bits(name: str, photometric: int, channels: int, bits: Sequence[int], **more: Any) -> list[_Kind]:
    return [_Kind(name, photometric, each, channels, **more) for each in bits]


_KINDS = (
    *_in_bits("grey", _BLACK_IS_ZERO, 1, (1, 2, 4, 6, 8, 10, 12, 14, 16, 24)),
    *_in_bits("inverted grey", _WHITE_IS_ZERO, 1, (1, 2, 4, 8, 12, 16)),
    *_in_bits("palette", _PALETTE, 1, (1, 2, 4, 8)),
    *_in_bits("RGB", _RGB, 3, (4, 8, 12, 16)),
    *_in_bits("grey+alpha", _BLACK_IS_ZERO, 1, (8, 16), extra=(_STRAIGHT,)),
    *_in_bits("inverted grey+alpha", _WHITE_IS_ZERO, 1, (8, 16), extra=(_STRAIGHT,)),
    *_in_bits("grey+premultiplied alpha", _BLACK_IS_ZERO, 1, (8, 16), extra=(_PREMULTIPLIED,)),
    *_in_bits("grey+spot", _BLACK_IS_ZERO, 1, (8, 16), extra=(_SPOT,)),
    *_in_bits("grey+unnamed", _BLACK_IS_ZERO, 1, (8, 16), unnamed=1),
    *_in_bits("palette+alpha", _PALETTE, 1, (8,), extra=(_STRAIGHT,)),
    *_in_bits("RGBA", _RGB, 3, (8, 16), extra=(_STRAIGHT,)),
    *_in_bits("RGB+premultiplied alpha", _RGB, 3, (8, 16), extra=(_PREMULTIPLIED,)),
    *_in_bits("RGB+spot", _RGB, 3, (8, 16), extra=(_SPOT,)),
    *_in_bits("RGB+unnamed", _RGB, 3, (8, 16), unnamed=1),
    *_in_bits("RGB+alpha+spot", _RGB, 3, (8, 16), extra=(_STRAIGHT, _SPOT)),
    *_in_bits("RGB+spot+alpha", _RGB, 3, (8, 16), extra=(_SPOT, _STRAIGHT)),
    *_in_bits("RGB+premultiplied alpha+spot", _RGB, 3, (8, 16), extra=(_PREMULTIPLIED, _SPOT)),
    *_in_bits("RGB+spots", _RGB, 3, (8, 16), extra=(_SPOT, _SPOT, _SPOT)),
    *_in_bits("CMYK", _CMYK, 4, (8, 16)),
    *_in_bits("CMYK+spot", _CMYK, 4, (8, 16), extra=(_SPOT,)),
    *_in_bits("CMYK+alpha", _CMYK, 4, (8, 16), extra=(_STRAIGHT,)),
    *_in_bits("YCbCr", _YCBCR, 3, (8,)),
    *_in_bits("Lab", _LAB, 3, (8, 16)),
    *_in_bits("signed grey", _BLACK_IS_ZERO, 1, (8, 16), sample_format=_SIGNED),
    *_in_bits("signed inverted grey", _WHITE_IS_ZERO, 1, (8, 16), sample_format=_SIGNED),
    *_in_bits("signed RGB", _RGB, 3, (8, 16), sample_format=_SIGNED),
    *_in_bits("undefined grey", _BLACK_IS_ZERO, 1, (8,), sample_format=_UNDEFINED),
    *_in_bits("grey", _BLACK_IS_ZERO, 1, (32,)),
    *_in_bits("signed grey", _BLACK_IS_ZERO, 1, (32,), sample_format=_SIGNED),
    *_in_bits("float grey", _BLACK_IS_ZERO, 1, (16, 32), sample_format=_FLOAT),
    *_in_bits("RGB", _RGB, 3, (32,)),
    *_in_bits("float RGB", _RGB, 3, (16, 32), sample_format=_FLOAT),
)


def tiff_files(each: int = 7) -> Iterator[PictureFile]:
    """Yield TIFF files, `each` of every kind of pixels."""
    options: dict[str, Sequence[Any]] = {
        "planar": (False, True),
        "compression": tuple(_COMPRESSIONS),
        "predictor": (1, 2),
        "tiled": (False, True),
        "order": ("<", ">"),
        "fill": (1, 1, 1, 2),
        "details": ("plain", "plain", "profile", "big", "one strip", "no byte counts"),
        "orientation": (1, 1, 2, 3, 4, 5, 6, 7, 8),
        "size": base.SIZES,
    }
    for number, kind in enumerate(_KINDS):
        for index, chosen in enumerate(base.choices(options, each, seed=100 + number)):
            orientation, size = chosen.pop("orientation"), chosen.pop("size")
            way = _possible(_Way(**chosen), kind)
            yield _file(np.random.default_rng((number, index)), kind, way, orientation, size)
    yield from _subsampled_files()
    yield from _files_by_libtiff()


def _possible(way: _Way, kind: _Kind) -> _Way:
    """Return the way without what does not exist for this kind."""
    packs = way.compression in ("LZW", "deflate", "old deflate")
    has_predictor = packs and kind.bits in (8, 16, 32) and kind.sample_format != _FLOAT
    return way._replace(
        planar=way.planar and _samples(kind) > 1,
        predictor=way.predictor if has_predictor else 1,
        fill=way.fill if kind.bits in (1, 2, 4, 8, 16) else 1,
        order="<" if way.details == "big" else way.order,
        tiled=way.tiled and way.details not in ("one strip", "no byte counts"),
    )


def _samples(kind: _Kind) -> int:
    return kind.channels + len(kind.extra) + kind.unnamed


def _file(
    generator: np.random.Generator, kind: _Kind, way: _Way, orientation: int, size: tuple[int, int]
) -> PictureFile:
    most = (1 << min(kind.bits, 16)) - 1
    levels = base.noise(generator, size, _samples(kind), most)
    if kind.photometric == _LAB:
        levels = _lab_of(base.smooth(size, 3, int(generator.integers(1000))), kind.bits)
    if _PREMULTIPLIED in kind.extra:  # no colour is brighter than its alpha
        at = kind.channels + kind.extra.index(_PREMULTIPLIED)
        levels[:, :, : kind.channels] = np.minimum(levels[:, :, : kind.channels], levels[:, :, at : at + 1])
    palette = generator.integers(0, 65536, (3, 1 << kind.bits)) if kind.photometric == _PALETTE else None
    pieces, tags = _pieces(levels, kind, way)
    tags |= {
        256: ("I", [size[1]]),
        257: ("I", [size[0]]),
        258: ("H", [kind.bits] * _samples(kind)),
        259: ("H", [_COMPRESSIONS[way.compression]]),
        262: ("H", [kind.photometric]),
        266: ("H", [way.fill] if way.fill != 1 else []),
        274: ("H", [orientation] if orientation > 1 else []),
        277: ("H", [_samples(kind)]),
        284: ("H", [2 if way.planar else 1]),
        317: ("H", [way.predictor] if way.predictor > 1 else []),
        320: ("H", [] if palette is None else palette.reshape(-1).tolist()),
        338: ("H", kind.extra),
        339: ("H", [] if kind.sample_format == _UNSIGNED else [kind.sample_format] * _samples(kind)),
        530: ("H", [1, 1] if kind.photometric == _YCBCR else []),
        34675: ("B", base.SRGB_PROFILE if way.details == "profile" and kind.photometric == _RGB else b""),
    }
    counts = way.compression != "none" or way.details != "no byte counts"
    rgb, alpha, known, tolerance = _expected(levels, kind, palette)
    words = ", ".join(f"{name} {value}" for name, value in way._asdict().items())
    return PictureFile(
        f"TIFF {kind.name}, {kind.bits} bits, {words}, orientation {orientation}, {size[1]}x{size[0]}",
        tiff(way.order, pieces, tags, tiled=way.tiled, big=way.details == "big", counts=counts),
        None if rgb is None else base.upright(rgb, orientation),
        None if alpha is None else base.upright(alpha, orientation),
        None if known is None else base.upright(known, orientation),
        tolerance=tolerance,
        mean_tolerance=min(tolerance, 2),
        may_be_refused=True,
        stored=levels if kind.sample_format == _UNSIGNED and kind.bits <= 16 else None,
    )


def _pieces(levels: Levels, kind: _Kind, way: _Way) -> tuple[list[bytes], Tags]:
    """Return strips or tiles, and the tags that say how large they are."""
    height, width, samples = levels.shape
    planes = [levels[:, :, at : at + 1] for at in range(samples)] if way.planar else [levels]
    if way.tiled:
        tags: Tags = {322: ("I", [_TILE]), 323: ("I", [_TILE])}
        planes = [np.pad(plane, ((0, -height % _TILE), (0, -width % _TILE), (0, 0)), mode="edge") for plane in planes]
        down, right = _TILE, _TILE
    else:
        down, right = (height if way.details == "one strip" else _ROWS), width
        tags = {} if way.details == "one strip" else {278: ("I", [down])}
    parts = [
        plane[top : top + down, left : left + right]
        for plane in planes
        for top in range(0, plane.shape[0], down)
        for left in range(0, plane.shape[1], right)
    ]
    return [_packed(part, kind, way) for part in parts], tags


def _packed(part: Levels, kind: _Kind, way: _Way) -> bytes:
    values = part.astype(np.int64)
    if way.predictor == 2:  # each value is its difference to the one on its left, of the same sample
        values = np.diff(values, axis=1, prepend=0) & ((1 << kind.bits) - 1)
    if kind.bits == 32:
        code = f"{way.order}{'f4' if kind.sample_format == _FLOAT else 'u4'}"
        rows = [row.astype(code).tobytes() for row in values]
    else:
        rows = base.packed_rows(values.astype(np.uint16), kind.bits, way.order)
    body = compressed(rows, way.compression)
    return body if way.fill == 1 else body.translate(_REVERSED)


def compressed(rows: Sequence[bytes], compression: str) -> bytes:
    """Return a strip or tile of these rows."""
    if compression == "PackBits":
        return b"".join(map(packbits, rows))
    raw = b"".join(rows)
    return {"none": bytes, "LZW": lzw}.get(compression, zlib.compress)(raw)


def packbits(row: bytes) -> bytes:
    """Compress a row: runs of three and more, and literals between them (TIFF 6.0, section 9)."""
    out, literal, at = bytearray(), bytearray(), 0

    def flush() -> None:
        for begin in range(0, len(literal), 128):
            some = literal[begin : begin + 128]
            out.extend((len(some) - 1, *some))
        literal.clear()

    while at < len(row):
        run = 1
        while run < 128 and at + run < len(row) and row[at + run] == row[at]:
            run += 1
        if run > 2:
            flush()
            out.extend((257 - run, row[at]))
        else:
            literal.extend(row[at : at + run])
        at += run
    flush()
    return bytes(out)


def lzw(data: bytes) -> bytes:
    """Compress with codes of 9 to 12 bits (TIFF 6.0, section 13)."""
    clear, end = 256, 257
    table: dict[bytes, int] = {}
    bits, word = [], b""

    def write(code: int) -> None:
        bits.append(f"{code:0{max(9, (258 + len(table)).bit_length())}b}")

    def code_of(text: bytes) -> int:
        return text[0] if len(text) == 1 else table[text]

    write(clear)
    for value in data:
        longer = word + bytes((value,))
        if len(longer) == 1 or longer in table:
            word = longer
            continue
        write(code_of(word))
        table[longer] = 258 + len(table)
        word = bytes((value,))
        if 258 + len(table) == 4094:
            write(clear)
            table.clear()
    write(code_of(word))
    table[b"of the decoder alone"] = 258 + len(table)
    write(end)
    text = "".join(bits)
    size = -(-len(text) // 8)
    return int(text.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def tiff(
    order: str, pieces: Sequence[bytes], tags: Tags, *, tiled: bool = False, big: bool = False, counts: bool = True
) -> bytes:
    """Return a TIFF of these strips or tiles and tags; a BigTIFF if it is `big`."""
    word, inline = ("Q", 8) if big else ("I", 4)
    padded = [piece + bytes(len(piece) % 2) for piece in pieces]
    *offsets, at = itertools.accumulate(map(len, padded), initial=16 if big else 8)
    places, sizes = (324, 325) if tiled else (273, 279)
    tags = tags | {places: (word, offsets), sizes: (word, [len(piece) for piece in pieces] if counts else [])}
    used = {tag: row for tag, row in sorted(tags.items()) if len(row[1])}
    entries, far = b"", b""
    for tag, (code, values) in used.items():
        body = bytes(values) if code == "B" else struct.pack(f"{order}{len(values)}{code.replace('R', 'I')}", *values)
        if len(body) > inline:
            body, far = struct.pack(order + word, at + len(far)), far + body + bytes(len(body) % 2)
        count = len(values) // 2 if code == "R" else len(values)
        entries += struct.pack(f"{order}HH{word}", tag, _TYPES[code], count) + body.ljust(inline, b"\0")
    at += len(far)
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, at) if big else struct.pack(f"{order}HI", 42, at)
    page = struct.pack(order + ("Q" if big else "H"), len(used)) + entries + bytes(inline)
    return b"".join((b"II" if order == "<" else b"MM", head, *padded, far, page))


def _expected(
    levels: Levels, kind: _Kind, palette: npt.NDArray[np.int64] | None
) -> tuple[Bytes | None, Bytes | None, npt.NDArray[np.bool_] | None, int]:
    """Return colours, alpha, where colours are known, and tolerance; no colours where the format leaves them open."""
    if kind.sample_format in (_SIGNED, _FLOAT) or kind.bits == 32:
        return None, None, None, 0
    grey = kind.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    colours = base.to_8_bits(levels[:, :, : kind.channels], kind.bits, grey=grey)
    tolerance = 0 if kind.bits <= 8 else 1  # the reduction to 8 bits
    # A fourth sample beside RGB counts as an alpha if nothing is said about it.
    extra = (_STRAIGHT,) if kind.unnamed and kind.photometric == _RGB else kind.extra
    at = next((at for at, value in enumerate(extra) if value), None)
    alpha = None if at is None else base.to_8_bits(levels[:, :, kind.channels + at], kind.bits, grey=False)
    known = None
    if alpha is not None and _PREMULTIPLIED in extra:
        # Colours that no alpha covers cannot be known, and in 16 bits a low alpha leaves few levels.
        known = alpha > 0 if kind.bits == 8 else alpha > 64
        colours = np.minimum(np.rint(colours * 255.0 / np.maximum(alpha, 1)[:, :, None]), 255).astype(np.uint8)
        tolerance = 1 if kind.bits == 8 else 5
    if kind.photometric == _WHITE_IS_ZERO:
        colours = 255 - colours
    elif kind.photometric == _PALETTE and palette is not None:
        colours = np.moveaxis(palette >> 8, 0, -1).astype(np.uint8)[levels[:, :, 0]]
    elif kind.photometric == _CMYK:
        colours, tolerance = base.from_cmyk(colours), tolerance + 1
    elif kind.photometric == _YCBCR:
        colours, tolerance = base.from_ycbcr(colours), 2
    elif kind.photometric == _LAB:
        colours, tolerance = _from_lab(levels, kind.bits), 24  # dark saturated colours, through tables
    return base.as_rgb(colours), base.opaque_as_none(alpha), known, tolerance


# -- CIE L*a*b* under D50 (TIFF 6.0, section 23) -------------------------------------------------------------------

_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
"""From linear sRGB, adapted to D50 (Bradford)."""

_WHITE = np.array([0.9642, 1.0, 0.8249])


def _lab_of(rgb: Bytes, bits: int) -> Levels:
    """Return the levels that a file stores for these colours."""
    values = rgb / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), 2, 0)
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=2)
    scale = np.array([2.55, 1, 1]) if bits == 8 else np.array([655.35, 256, 256])
    return (np.rint(lab * scale).astype(np.int64) & ((1 << bits) - 1)).astype(np.uint16)


def _from_lab(levels: Levels, bits: int) -> Bytes:
    signed = levels.astype(np.uint8).astype(np.int8) if bits == 8 else levels.astype(np.int16)
    scale = (255.0, 1.0) if bits == 8 else (65535.0, 256.0)
    lightness, a, b = levels[:, :, 0] / scale[0] * 100, signed[:, :, 1] / scale[1], signed[:, :, 2] / scale[1]
    middle = (lightness + 16) / 116
    parts = np.stack([middle + a / 500, middle, middle - b / 200], axis=2)
    xyz = np.where(parts**3 > 0.008856, parts**3, (parts - 16 / 116) / 7.787) * _WHITE
    linear = np.clip(xyz @ np.linalg.inv(_TO_XYZ).T, 0, 1)
    values = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(values * 255).astype(np.uint8)


# -- what needs another layout or another writer -------------------------------------------------------------------


def _subsampled_files() -> Iterator[PictureFile]:
    """Yield YCbCr whose colours have a lower resolution, uncompressed or packed (TIFF 6.0, section 21).

    A block has the lightness of each of its pixels, then one Cb and one Cr.
    """
    ways = itertools.product(
        ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 2), (4, 4), None), ("none", "LZW", "deflate"), ("full", "video")
    )
    for index, (factors, compression, levels_of) in enumerate(ways):
        right, down = factors or (2, 2)  # the default of the format
        size = (16, 24) if index % 4 > 1 else (13, 18)
        height, width = size
        blocks = (-(-height // down), -(-width // right))
        luma = base.smooth((blocks[0] * down, blocks[1] * right), 1, index)[:, :, 0]
        chroma = base.smooth(blocks, 2, index + 100)
        parts = luma.reshape(blocks[0], down, blocks[1], right).swapaxes(1, 2).reshape(*blocks, -1)
        rows = [row.tobytes() for row in np.concatenate([parts, chroma], axis=2)]
        whole = np.dstack([luma, chroma.repeat(down, axis=0).repeat(right, axis=1)])[:height, :width]
        if levels_of == "video":  # black is 16 and white 235
            whole = np.clip(
                np.rint((whole - (16.0, 128, 128)) * (255 / 219, 127 / 112, 127 / 112) + (0, 128, 128)), 0, 255
            )
        tags: Tags = {
            256: ("I", [width]),
            257: ("I", [height]),
            258: ("H", [8, 8, 8]),
            259: ("H", [_COMPRESSIONS[compression]]),
            262: ("H", [_YCBCR]),
            277: ("H", [3]),
            278: ("I", [height]),
            530: ("H", factors or ()),
            34675: ("B", base.SRGB_PROFILE),  # a reader that wants more pixels finds bytes behind them
            532: ("R", [16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1] if levels_of == "video" else []),
        }
        yield PictureFile(
            f"TIFF YCbCr, subsampled {factors}, {compression}, {levels_of} range, {width}x{height}",
            tiff("<", [compressed(rows, compression)], tags),
            base.from_ycbcr(whole),
            tolerance=12,  # readers may blend colours between blocks
            mean_tolerance=4,
            may_be_refused=True,
        )


def _files_by_libtiff() -> Iterator[PictureFile]:
    """Yield TIFF with CCITT and JPEG compression."""
    for index, (compression, inverted) in enumerate(
        itertools.product(("group3", "group4", "tiff_ccitt"), (False, True))
    ):
        size = base.SIZES[index % 2]
        levels = base.noise(np.random.default_rng(index), size, 1, 1)[:, :, 0]
        info = {262: _WHITE_IS_ZERO if inverted else _BLACK_IS_ZERO}
        data = _saved(Image.fromarray(levels > 0), compression=compression, tiffinfo=info)
        right = 255 * levels.astype(np.uint8)
        yield PictureFile(
            f"TIFF {compression}, {'inverted' if inverted else 'plain'}", data, base.as_rgb(right[:, :, None])
        )
    for mode, channels in (("L", 1), ("RGB", 3), ("YCbCr", 3), ("CMYK", 4)):
        pixels = base.smooth((37, 51), channels, channels)
        image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, "CMYK" if channels == 4 else None)
        image = image.convert(mode) if mode == "YCbCr" else image
        right = base.from_cmyk(pixels) if channels == 4 else base.as_rgb(pixels)
        data = _saved(image, compression="jpeg", quality=95)
        yield PictureFile(f"TIFF JPEG, {mode}", data, right, tolerance=16, mean_tolerance=3, may_be_refused=True)


def _saved(image: Image.Image, **settings: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "TIFF", **settings)
    return out.getvalue()
