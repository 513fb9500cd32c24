"""Take a PNG apart before a decoder sees it: only chunks that decide over pixels reach Pillow.

    data ── chunks, checksums ──> PngFile: a PNG of critical chunks, EXIF and XMP, its image data in one chunk
                                          transparent colour, ICC profile, signalled colour space, notes

Rules, by chunk (PNG specification, third edition, section 5):

- Critical chunks and tRNS decide over pixels: a wrong checksum is an error.
- All others are metadata. One with a wrong checksum, or that inflates to more than its limit, is dropped with a note.
  Texts are dropped without one, except XMP and EXIF in a text, which may hold the orientation.
- The chunks of an animation are dropped: the picture is the one that a viewer without animation shows.
- A file that ends after its image data, but before its end chunk, is read, with a note.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from worker.contract.errors import Undecodable, UnsupportedFormat
from worker.images.colour_space import MAX_PROFILE_BYTES, Signalled, from_cicp, from_gamma

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MISSING_END = "damaged: the end of the file is missing, but its pixels are all there"
DAMAGED_METADATA = "damaged: metadata that cannot be read was dropped"

MAX_TEXT_BYTES = 1 << 20
"""Limit of an inflated text, the one of Pillow."""

MAX_CHUNKS = 1 << 17
"""Limit of chunks in one PNG, each of which takes time; encoders write image data in chunks of 8 KiB and more."""

_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types
_DECIDES_PIXELS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"tRNS"))
_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_KEPT_TEXTS = frozenset((b"XML:com.adobe.xmp", b"Raw profile type exif"))
_HEADER_BYTES = 13


@dataclass
class PngFile:
    """A PNG that holds no more than a decoder needs, and what was found beside its pixels."""

    data: bytes = b""
    depth: int = 8
    """Bits per channel."""

    transparent: tuple[int, ...] = ()
    """The transparent grey level or colour at the file's own depth; empty if there is none, or a palette."""

    icc_profile: bytes = b""
    signalled: Signalled | None = None
    notes: list[str] = field(default_factory=list)


def read_png(data: bytes) -> PngFile:
    """Take a PNG apart.

    Raises:
        Undecodable: the file ends within its image data, a chunk that decides over pixels is damaged, or there are more
            than `MAX_CHUNKS`.
        UnsupportedFormat: a private variant of PNG.
    """
    return _Reader(data).read()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._view = memoryview(data)
        self._found = PngFile()
        self._kept = [self._view[:8]]
        self._colour_type = -1
        self._pixels: list[memoryview] = []
        self._pixels_at = 0
        self._seen: set[bytes] = set()
        self._facts: dict[bytes, bytes] = {}

    def read(self) -> PngFile:
        if not self._read_chunks():
            if not self._pixels:
                raise Undecodable("PNG is truncated or broken (no image data); export or upload it again")
            self._note(MISSING_END)
        self._read_colour_space()
        if self._pixels:
            self._kept[self._pixels_at : self._pixels_at] = _chunk(b"IDAT", self._pixels)
        self._kept.append(memoryview(b"\0\0\0\0IEND\xaeB`\x82"))
        self._found.data = b"".join(self._kept)
        self._kept.clear()
        return self._found

    def _read_chunks(self) -> bool:
        """Read all chunks; return whether the file has its end chunk."""
        at, size, count = 8, len(self._view), 0
        while at + 12 <= size:
            count += 1
            if count > MAX_CHUNKS:
                raise Undecodable(f"PNG with more than {MAX_CHUNKS:,} chunks; export it again")
            length, kind = struct.unpack_from(">I4s", self._view, at)
            end = at + 12 + length
            if end > size:
                if kind == b"IDAT":
                    raise Undecodable("PNG is truncated or broken (image data cut off); export or upload it again")
                return False
            chunk, body = self._view[at:end], self._view[at + 8 : end - 4]
            intact = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
            if kind == b"IEND":
                return intact
            self._take(kind, chunk, body, intact)
            at = end
        return False

    def _take(self, kind: bytes, chunk: memoryview, body: memoryview, intact: bool) -> None:
        if kind in _DECIDES_PIXELS:
            if not intact:
                raise Undecodable(f"PNG is broken (wrong checksum in {kind.decode()}); export or upload it again")
            self._take_pixels(kind, chunk, body)
        elif kind == b"CgBI":
            raise UnsupportedFormat("Apple's CgBI variant of PNG is not supported; convert it to standard PNG first")
        elif not kind[0] & 0x20:
            raise UnsupportedFormat(f"a PNG with the unknown critical chunk {kind!r} is not supported; export it again")
        elif not intact:
            self._note(DAMAGED_METADATA)
        elif kind in _TEXTS:
            self._take_text(kind, chunk, bytes(body))
        elif kind == b"eXIf" and self._first(kind):
            self._kept.append(chunk)
        elif kind in (b"iCCP", b"cICP", b"sRGB", b"gAMA", b"cHRM") and self._first(kind):
            self._facts[kind] = bytes(body)

    def _take_pixels(self, kind: bytes, chunk: memoryview, body: memoryview) -> None:
        if kind == b"IHDR" and len(body) >= _HEADER_BYTES:
            self._found.depth, self._colour_type = body[8], body[9]
        elif kind == b"tRNS" and self._colour_type in (_GREY, _RGB):
            values = 1 if self._colour_type == _GREY else 3
            if len(body) < 2 * values:
                raise Undecodable("PNG is broken (its transparent colour is incomplete); export or upload it again")
            self._found.transparent = struct.unpack_from(f">{values}H", body)
            return
        elif kind == b"tRNS" and self._colour_type != _PALETTE:
            return  # forbidden beside an alpha channel (11.3.1.1)
        if kind == b"IDAT":
            self._pixels_at = self._pixels_at or len(self._kept)
            self._pixels.append(body)
        else:
            self._kept.append(chunk)

    def _take_text(self, kind: bytes, chunk: memoryview, body: bytes) -> None:
        """Keep XMP and EXIF of a readable size, once."""
        keyword, _, rest = body.partition(b"\0")
        if keyword not in _KEPT_TEXTS or not self._first(keyword):
            return
        packed = b""
        if kind == b"zTXt":
            packed = rest[1:]
        elif kind == b"iTXt" and rest[:1] == b"\1":
            packed = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        size = len(body) if not packed else len(_inflated(packed, MAX_TEXT_BYTES))
        if 0 < size <= MAX_TEXT_BYTES:
            self._kept.append(chunk)
        else:
            what = "XMP" if keyword.startswith(b"XML") else "EXIF"
            self._note(f"{what} not readable or larger than {MAX_TEXT_BYTES >> 20} MiB: not read")

    def _read_colour_space(self) -> None:
        """Choose among what describes the colours: cICP, then iCCP, then sRGB, then gAMA and cHRM (section 4.3)."""
        facts = self._facts
        if b"cICP" in facts:
            self._found.signalled = from_cicp(facts[b"cICP"])
        elif b"iCCP" in facts:
            packed = facts[b"iCCP"].partition(b"\0")[2][1:]
            profile = _inflated(packed, MAX_PROFILE_BYTES)
            if not profile:
                self._note("ICC profile not usable: dropped")
            self._found.icc_profile = profile
        elif b"sRGB" not in facts:
            self._found.signalled = from_gamma(facts.get(b"gAMA", b""), facts.get(b"cHRM", b""))

    def _first(self, kind: bytes) -> bool:
        """Return whether a kind of chunk is seen for the first time; decoders use the first one of each."""
        is_first = kind not in self._seen
        self._seen.add(kind)
        return is_first

    def _note(self, text: str) -> None:
        if text not in self._found.notes:
            self._found.notes.append(text)


def _chunk(kind: bytes, parts: list[memoryview]) -> list[memoryview]:
    """Return one chunk with the content of several: Pillow takes one after the other in Python."""
    checksum = zlib.crc32(kind)
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    head = struct.pack(">I", sum(map(len, parts))) + kind
    return [memoryview(head), *parts, memoryview(struct.pack(">I", checksum))]


def _inflated(packed: bytes, most: int) -> bytes:
    """Return inflated bytes, at most `most` and one more; nothing if they are damaged."""
    unpacker = zlib.decompressobj()
    try:
        out = unpacker.decompress(packed, most + 1)
    except zlib.error:
        return b""
    return out if unpacker.eof or len(out) > most else b""
