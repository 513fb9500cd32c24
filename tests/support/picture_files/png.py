"""PNG: every colour type and depth, filters, interlacing, transparent colours, and chunks beside the pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from support.picture_files import base
from support.picture_files.base import Bytes, Levels, PictureFile

_KINDS = (
    (0, 1),
    (0, 2),
    (0, 4),
    (0, 8),
    (0, 16),
    (2, 8),
    (2, 16),
    (3, 1),
    (3, 2),
    (3, 4),
    (3, 8),
    (4, 8),
    (4, 16),
    (6, 8),
    (6, 16),
)
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_NAMES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey+alpha", 6: "RGBA"}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_METADATA = ("none", "iCCP", "gAMA", "sRGB", "texts", "apng")


def png_files(count: int = 330) -> Iterator[PictureFile]:
    """Yield PNG files."""
    options = {
        "kind": _KINDS,
        "transparent": (False, True),
        "interlaced": (False, True),
        "metadata": _METADATA,
        "orientation": (1, 1, 2, 3, 4, 5, 6, 7, 8),
        "size": base.SIZES,
    }
    for index, chosen in enumerate(base.choices(options, count, seed=1)):
        yield _file(np.random.default_rng(index), **chosen)


def _file(
    generator: np.random.Generator,
    *,
    kind: tuple[int, int],
    transparent: bool,
    interlaced: bool,
    metadata: str,
    orientation: int,
    size: tuple[int, int],
) -> PictureFile:
    colour_type, depth = kind
    most = (1 << depth) - 1
    levels = base.noise(generator, size, _CHANNELS[colour_type], most)
    palette = generator.integers(0, 256, (most + 1, 3)).astype(np.uint8) if colour_type == 3 else None
    key = _transparent(generator, levels, colour_type, most) if transparent else b""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], depth, colour_type, 0, 0, interlaced))]
    chunks += _before(metadata)
    chunks += [(b"PLTE", palette.tobytes())] if palette is not None else []
    chunks += [(b"tRNS", key)] if key else []
    turned = [(b"eXIf", base.exif(orientation, "<>"[orientation % 2]))] if orientation > 1 else []
    chunks += turned if orientation % 4 else []  # it may also follow the pixels
    data = zlib.compress(_filtered(generator, levels, depth, interlaced=interlaced))
    half = len(data) // 2
    chunks += [(b"IDAT", b""), (b"IDAT", data[:half]), (b"IDAT", data[half:])]
    chunks += [] if orientation % 4 else turned
    if metadata == "apng":
        chunks.append((b"fdAT", struct.pack(">I", 1) + zlib.compress(bytes(100))))
    chunks.append((b"IEND", b""))
    rgb, alpha = _expected(levels, colour_type, depth, palette, key)
    name = f"PNG {_NAMES[colour_type]} {depth} bits, {'tRNS, ' if key else ''}{'interlaced, ' if interlaced else ''}"
    return PictureFile(
        f"{name}{metadata}, orientation {orientation}, {size[1]}x{size[0]}",
        b"\x89PNG\r\n\x1a\n" + b"".join(map(_chunk, chunks)),
        base.upright(rgb, orientation),
        None if alpha is None else base.upright(alpha, orientation),
        tolerance=1 if depth == 16 else 0,  # the reduction to 8 bits
        mean_tolerance=1,
        has_profile=None if metadata == "iCCP" and colour_type in (0, 4) else metadata in ("gAMA", "iCCP"),
    )


def _transparent(generator: np.random.Generator, levels: Levels, colour_type: int, most: int) -> bytes:
    """Return a tRNS chunk whose colour is in the picture, beside others that differ by one level."""
    if colour_type == 3:
        return generator.integers(0, 256, generator.integers(1, most + 2)).astype(np.uint8).tobytes()
    if colour_type not in (0, 2):
        return b""
    flat = levels.reshape(-1, levels.shape[2])
    key = flat[generator.integers(len(flat))].copy()
    near = key.copy()
    near[-1] = near[-1] - 1 if near[-1] else 1
    places = generator.permutation(len(flat))
    flat[places[: len(flat) // 4]] = key
    flat[places[len(flat) // 4 : len(flat) // 2]] = near
    return key.astype(">u2").tobytes()


def _expected(
    levels: Levels, colour_type: int, depth: int, palette: Bytes | None, key: bytes
) -> tuple[Bytes, Bytes | None]:
    if palette is not None:
        alphas = np.full(len(palette), 255, np.uint8)
        alphas[: len(key)] = np.frombuffer(key, np.uint8)
        index = levels[:, :, 0]
        return palette[index], base.opaque_as_none(alphas[index])
    grey = colour_type in (0, 4)
    colours = base.to_8_bits(levels[:, :, : 1 if grey else 3], depth, grey=grey)
    alpha: Bytes | None = None
    if colour_type in (4, 6):
        alpha = base.to_8_bits(levels[:, :, -1], depth, grey=False)
    elif key:
        alpha = np.where((levels == np.frombuffer(key, ">u2")).all(axis=2), 0, 255).astype(np.uint8)
    return base.as_rgb(colours), base.opaque_as_none(alpha)


def _filtered(generator: np.random.Generator, levels: Levels, depth: int, *, interlaced: bool) -> bytes:
    passes = [levels[top::down, left::right] for top, left, down, right in _ADAM7] if interlaced else [levels]
    step = max(1, depth * levels.shape[2] // 8)
    return b"".join(_filter_rows(generator, base.packed_rows(part, depth), step) for part in passes if part.size)


def _filter_rows(generator: np.random.Generator, rows: Sequence[bytes], step: int) -> bytes:
    """Filter each row by a random one of the five types (PNG specification, 9.2)."""
    above, out = bytes(len(rows[0])), bytearray()
    for row in rows:
        kind = int(generator.integers(5))
        out.append(kind)
        for at, value in enumerate(row):
            left = row[at - step] if at >= step else 0
            corner = above[at - step] if at >= step else 0
            out.append(value - _prediction(kind, left, above[at], corner) & 255)
        above = row
    return bytes(out)


def _prediction(kind: int, left: int, up: int, corner: int) -> int:
    if kind < 4:
        return (0, left, up, (left + up) // 2)[kind]
    estimate = left + up - corner
    return min((abs(estimate - left), 0, left), (abs(estimate - up), 1, up), (abs(estimate - corner), 2, corner))[2]


def _before(metadata: str) -> list[tuple[bytes, bytes]]:
    """Return the chunks that come before the palette."""
    kinds: dict[str, list[tuple[bytes, bytes]]] = {
        "none": [],
        "iCCP": [(b"iCCP", b"name\0\0" + zlib.compress(base.SRGB_PROFILE))],
        "gAMA": [(b"gAMA", struct.pack(">I", 100_000))],
        "sRGB": [(b"gAMA", struct.pack(">I", 45_455)), (b"sRGB", b"\0"), (b"pHYs", bytes(8) + b"\1")],
        "texts": [
            (b"tEXt", b"Title\0a picture"),
            (b"zTXt", b"transparency\0\0" + zlib.compress(b"none")),
            (b"iTXt", b"Comment\0\0\0\0\0" + "ü".encode()),
        ],
        "apng": [(b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 10, 0, 0))],
    }
    return kinds[metadata]


def _chunk(chunk: tuple[bytes, Any]) -> bytes:
    kind, body = chunk
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
