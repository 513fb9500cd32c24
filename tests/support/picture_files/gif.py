"""GIF: interlacing, palettes of every size, frames smaller than their screen, transparency."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from support.picture_files import base
from support.picture_files.base import PictureFile

_INTERLACED = ((0, 8), (4, 8), (2, 4), (1, 2))  # first row and step of each pass (GIF89a, appendix E)


def gif_files(count: int = 90) -> Iterator[PictureFile]:
    """Yield GIF files."""
    options = {
        "bits": (1, 2, 3, 4, 7, 8),
        "interlaced": (False, True),
        "transparent": (False, True),
        "offset": (False, True),
        "local": (False, True),
        "grows": (False, True),
        "frames": (1, 1, 2),
        "size": base.SIZES,
    }
    for index, chosen in enumerate(base.choices(options, count, seed=2)):
        yield _file(np.random.default_rng(index), **chosen)


def _file(
    generator: np.random.Generator,
    *,
    bits: int,
    interlaced: bool,
    transparent: bool,
    offset: bool,
    local: bool,
    grows: bool,
    frames: int,
    size: tuple[int, int],
) -> PictureFile:
    height, width = size
    levels = base.noise(generator, size, 1, (1 << bits) - 1)[:, :, 0]
    top, left, below, right = (3, 2, 4, 1) if offset else (0, 0, 0, 0)
    screen = (height + top + below, width + left + right)
    palette = generator.integers(0, 256, (1 << bits, 3)).astype(np.uint8)
    key = int(levels[0, 0]) if transparent else None
    table = 0x80 | (bits - 1)
    head = b"GIF89a" + struct.pack("<HHBBB", screen[1], screen[0], 0x70 | (bits - 1) | (0 if local else 0x80), 1, 0)
    parts = [head, b"" if local else palette.tobytes()]
    for frame in range(frames):
        parts.append(b"\x21\xf9\x04" + struct.pack("<BHBB", 4 | (key is not None), 10, key or 0, 0))
        packed = (table if local else 0) | (0x40 if interlaced else 0)
        parts.append(b"," + struct.pack("<HHHHB", left, top, width, height, packed))
        parts.append(palette.tobytes() if local else b"")
        shown = levels if frame == 0 else levels[::-1]
        order = [row for start, step in _INTERLACED for row in range(start, height, step)] if interlaced else None
        body = (shown if order is None else shown[order]).astype(np.uint8).tobytes()
        parts.append(_packed(body, max(2, bits)) if grows else _plain(body, max(2, bits)))
    rgb = np.zeros((*screen, 3), np.uint8)
    alpha = np.zeros(screen, np.uint8)
    inside = (slice(top, top + height), slice(left, left + width))
    rgb[inside] = palette[levels]
    alpha[inside] = 255 if key is None else np.where(levels == key, 0, 255)
    known = np.zeros(screen, np.bool_)
    known[inside] = True
    flags = {"interlaced": interlaced, "transparent": transparent, "offset": offset, "local palette": local}
    words = ", ".join([f"{bits} bits", *filter(flags.get, flags), "packed" if grows else "plain", f"{frames} frames"])
    name = f"GIF {words}, {width}x{height}"
    return PictureFile(name, b"".join((*parts, b";")), rgb, base.opaque_as_none(alpha), known)


def _plain(data: bytes, bits: int) -> bytes:
    """Write LZW codes that never grow: the table is cleared before it is full enough for that."""
    clear, codes = 1 << bits, [1 << bits]
    for at, value in enumerate(data):
        if at and at % ((1 << bits) - 2) == 0:
            codes.append(clear)
        codes.append(value)
    codes.append(clear + 1)
    return _blocks([(code, bits + 1) for code in codes], bits)


def _packed(data: bytes, bits: int) -> bytes:
    """Write LZW codes that grow up to 12 bits (GIF89a, appendix F)."""
    clear = 1 << bits
    table: dict[bytes, int] = {}
    codes: list[tuple[int, int]] = [(clear, bits + 1)]
    word = b""

    def write(code: int) -> None:
        # The reader adds its entries one code later, so the width counts the entries before this one's.
        codes.append((code, min(12, max(bits + 1, (clear + 1 + len(table)).bit_length()))))

    for value in data:
        longer = word + bytes((value,))
        if len(longer) == 1 or longer in table:
            word = longer
            continue
        write(word[0] if len(word) == 1 else table[word])
        if clear + 2 + len(table) < 4096:
            table[longer] = clear + 2 + len(table)
        word = bytes((value,))
    write(word[0] if len(word) == 1 else table[word])
    table[b"of the reader alone"] = 0
    write(clear + 1)
    return _blocks(codes, bits)


def _blocks(codes: list[tuple[int, int]], bits: int) -> bytes:
    """Pack codes of given widths, lowest bits first, into blocks of up to 255 bytes."""
    number = at = 0
    for code, width in codes:
        number |= code << at
        at += width
    body = number.to_bytes(-(-at // 8), "little")
    blocks = [body[start : start + 255] for start in range(0, len(body), 255)]
    return bytes((bits,)) + b"".join(bytes((len(block),)) + block for block in blocks) + b"\0"
