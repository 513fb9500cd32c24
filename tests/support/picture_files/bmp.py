"""BMP: 1 to 32 bits, palettes, bit fields, run lengths, old and new headers, either direction of rows."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from support.picture_files import base
from support.picture_files.base import Bytes, Levels, PictureFile

_FIELDS = {
    "16 fields 565": (0xF800, 0x07E0, 0x001F, 0),
    "16 fields 555": (0x7C00, 0x03E0, 0x001F, 0),
    "16 fields 1555, alpha": (0x7C00, 0x03E0, 0x001F, 0x8000),
    "16 fields 4444, alpha": (0x0F00, 0x00F0, 0x000F, 0xF000),
    "32 fields": (0x00FF0000, 0x0000FF00, 0x000000FF, 0),
    "32 fields RGBX": (0xFF000000, 0x00FF0000, 0x0000FF00, 0),
    "32 fields XBGR": (0x000000FF, 0x0000FF00, 0x00FF0000, 0),
    "32 fields, alpha": (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000),
    "32 fields RGBA, alpha": (0xFF000000, 0x00FF0000, 0x0000FF00, 0x000000FF),
    "32 fields 10 bits": (0x3FF00000, 0x000FFC00, 0x000003FF, 0),
}
_KINDS = (
    "1",
    "2",
    "4",
    "8",
    "16",
    "24",
    "32",
    "32 version 4",
    "4 runs",
    "8 runs",
    "8 runs, jumps",
    "OS/2 1",
    "OS/2 8",
    "OS/2 24",
    *_FIELDS,
)
_BY_BITS = {16: "16 fields 555", 24: "32 fields", 32: "32 fields"}
# Every reader knows these.
_COMMON = frozenset(
    (
        "1",
        "4",
        "8",
        "16",
        "24",
        "32",
        "4 runs",
        "8 runs",
        "32 fields",
        "32 fields, alpha",
        "16 fields 565",
        "16 fields 555",
    )
)
_RUNS_8, _RUNS_4, _BIT_FIELDS = 1, 2, 3


def bmp_files(count: int = 110) -> Iterator[PictureFile]:
    """Yield BMP files."""
    options = {"kind": _KINDS, "top_down": (False, True), "short": (False, True), "size": base.SIZES}
    for index, chosen in enumerate(base.choices(options, count, seed=3)):
        yield _file(np.random.default_rng(index), **chosen)


def _file(
    generator: np.random.Generator, *, kind: str, top_down: bool, short: bool, size: tuple[int, int]
) -> PictureFile:
    """Write one file; `short`: its palette has fewer entries than its bits could count."""
    bits = int(next(part for part in kind.split() if part.isdigit()))
    height, width = size
    top_down = top_down and "OS/2" not in kind and "runs" not in kind
    alpha = known = None
    colours = b""
    if bits <= 8:
        entries = max(2, (1 << bits) - 3) if short and "OS/2" not in kind else 1 << bits
        palette = generator.integers(0, 256, (entries, 3)).astype(np.uint8)
        levels = base.noise(generator, size, 1, entries - 1)
        if "runs" in kind:
            levels[:, width // 3 :] = levels[0, 0]
        rgb = palette[levels[:, :, 0]]
        pad = () if "OS/2" in kind else (np.zeros((entries, 1), np.uint8),)
        colours = np.hstack((palette[:, ::-1], *pad)).tobytes()
        rows = base.packed_rows(levels, bits)
        body = _padded(rows, top_down=top_down)
        if "runs" in kind:
            body = _runs(levels[::-1, :, 0], bits, skipped=2 if "jumps" in kind else 0)
            known = np.ones(size, np.bool_)
            known[:, max(0, width - 2) if "jumps" in kind else width :] = False
    else:
        entries = 0
        rgb, alpha, words = _fields(generator, size, _FIELDS.get(kind) or _FIELDS[_BY_BITS[bits]])
        body = _padded([_bytes_of(row, bits // 8) for row in words], top_down=top_down)
    head = _header(kind, bits, size, entries, top_down=top_down)
    at = 14 + len(head) + len(colours)
    name = f"BMP {kind}, {'top-down, ' if top_down else ''}{'short palette, ' if short else ''}{width}x{height}"
    return PictureFile(
        name,
        b"BM" + struct.pack("<IHHI", at + len(body), 0, 0, at) + head + colours + body,
        np.ascontiguousarray(rgb),
        base.opaque_as_none(alpha),
        known,
        tolerance=8 if bits == 16 else 0,  # readers differ in how they spread five bits over eight
        mean_tolerance=8,
        may_be_refused=kind not in _COMMON,
    )


def _fields(
    generator: np.random.Generator, size: tuple[int, int], masks: tuple[int, int, int, int]
) -> tuple[Bytes, Bytes | None, npt.NDArray[np.uint32]]:
    """Return colours, alpha and the words that hold them; bits outside all masks are random."""
    shown, spare = [], ~np.uint32(0)
    words = np.zeros(size, np.uint32)
    for mask in filter(None, masks):
        most, shift = mask >> (mask & -mask).bit_length() - 1, (mask & -mask).bit_length() - 1
        levels = base.noise(generator, size, 1, most)[:, :, 0].astype(np.uint32)
        words |= levels << np.uint32(shift)
        spare &= ~np.uint32(mask)
        shown.append(np.rint(levels * 255 / most).astype(np.uint8))
    words |= generator.integers(0, 1 << 32, size).astype(np.uint32) & spare
    return np.stack(shown[:3], axis=2), shown[3] if len(shown) > 3 else None, words


def _bytes_of(words: npt.NDArray[np.uint32], count: int) -> bytes:
    """Return the low `count` bytes of each word."""
    return np.ascontiguousarray(words.astype("<u4")[:, None].view(np.uint8)[:, :count]).tobytes()


def _header(kind: str, bits: int, size: tuple[int, int], entries: int, *, top_down: bool) -> bytes:
    height, width = size
    if "OS/2" in kind:
        return struct.pack("<IHHHH", 12, width, height, 1, bits)
    fields = _FIELDS.get(kind)
    compression = _BIT_FIELDS if fields else 0
    if "runs" in kind:
        compression = _RUNS_8 if bits == 8 else _RUNS_4
    plain = struct.pack(
        "<iiHHIIiiII", width, -height if top_down else height, 1, bits, compression, 0, 0, 0, entries, 0
    )
    if kind == "32 version 4":  # masks that count only for bit fields
        return struct.pack("<I", 108) + plain + struct.pack("<4I", *_FIELDS["32 fields, alpha"]) + b"BGRs" + bytes(48)
    if fields and fields[3]:  # a header of version 4 has the mask of the alpha
        return struct.pack("<I", 108) + plain + struct.pack("<4I", *fields) + b"BGRs" + bytes(48)
    return struct.pack("<I", 40) + plain + (struct.pack("<3I", *fields[:3]) if fields else b"")


def _padded(rows: list[bytes], *, top_down: bool) -> bytes:
    return b"".join(row + bytes(-len(row) % 4) for row in (rows if top_down else rows[::-1]))


def _runs(levels: Levels, bits: int, *, skipped: int) -> bytes:
    """Write rows, the lowest first, as runs, and one absolute part in each row where three pixels fit.

    The last `skipped` pixels of each row are jumped over: they have no colour.
    """
    out = bytearray()
    for full in levels:
        row, at = full[: max(0, len(full) - skipped)], 0
        if len(row) >= 3:
            some = row[:3].tolist()
            body = bytes(some) if bits == 8 else bytes((some[0] << 4 | some[1], some[2] << 4))
            out += bytes((0, 3)) + body + bytes(len(body) % 2)
            at = 3
        while at < len(row):
            run = 1
            while run < 255 and at + run < len(row) and row[at + run] == row[at]:
                run += 1
            value = int(row[at])
            out += bytes((run, value if bits == 8 else value << 4 | value))
            at += run
        out += bytes((0, 2, len(full) - len(row), 0)) if len(full) > len(row) else b""
        out += b"\0\0"
    return bytes(out) + b"\0\1"
