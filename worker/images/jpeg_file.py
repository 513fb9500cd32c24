"""Read what a JPEG says about itself before a decoder runs: its kind, its depth, and whether it ends.

Segments and markers are those of ITU-T T.81, annex B. Nothing here decodes pixels.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from worker.contract.errors import TooLarge, Undecodable, UnsupportedFormat

MAX_JPEG_SCANS = 500
"""Maximum scans in one JPEG. Encoders write about ten. Every scan passes over the whole picture, so a small file with
thousands of them keeps a decoder busy for hours. The value is the one that libjpeg-turbo's own fuzzers use."""

MAX_SEGMENTS = 1 << 17
"""Limit of segments in one JPEG; each takes time, whatever its size. A profile and a depth map need some hundreds."""

MAX_SCAN_PIXELS = 3_000_000_000
"""Limit of scans x pixels: 30 scans of 100 megapixels. A scan takes about 5 ns per pixel even if it holds nothing."""

MAX_TABLE_BYTES = 1 << 18
"""Limit of all quantisation and Huffman tables before the first scan, which Pillow parses in Python; 1 KiB is usual."""

MAX_METADATA = 512
"""Limit of segments with EXIF, XMP or an ICC profile, which has 255 at most; Pillow puts them together one by one."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_DCT = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))  # baseline, extended, progressive; Huffman and arithmetic
_PROGRESSIVE = frozenset((0xC2, 0xCA))
_LOSSLESS = 0xC3
_REFUSED = {
    0xC5: "hierarchical JPEG",
    0xC6: "hierarchical JPEG",
    0xC7: "hierarchical JPEG",
    0xCB: "lossless JPEG with arithmetic coding",
    0xCD: "hierarchical JPEG",
    0xCE: "hierarchical JPEG",
    0xCF: "hierarchical JPEG",
    0xF7: "JPEG-LS",  # ITU-T T.87
}
_DQT, _DHT, _COM = 0xDB, 0xC4, 0xFE
_APP = range(0xE0, 0xF0)
_NEEDED_APP = {  # what Pillow or libjpeg reads: size and colours, EXIF and XMP, profile
    0xE0: (b"JFIF",),
    0xE1: (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0"),
    0xE2: (b"ICC_PROFILE\0",),
    0xEE: (b"Adobe",),
}
# Bytes that a segment of this name has at least: JFIF 1.02; T.872, 6.5.3; ICC.1:2022, B.4.
_LEAST = {0xE0: ((b"JFIF", 14),), 0xEE: ((b"Adobe", 12),), 0xE2: ((b"ICC_PROFILE\0", 14),)}
_COEFFICIENTS = 64
_BITS = 8
_MISSING = 99  # "not sent yet", more than any point transform (0 to 13)


class JpegFacts(NamedTuple):
    """What the segments of a JPEG say."""

    is_dct: bool
    """Whether the picture consists of DCT blocks, which can be decoded at a part of its size."""

    has_end: bool
    """Whether the file has its end marker."""

    has_all_scans: bool
    """Whether scans for every bit of every coefficient have begun; always false for a lossless JPEG."""

    unneeded: tuple[tuple[int, int], ...] = ()
    """Beginning and end of what Pillow must not see before the first scan: segments for which it refuses the picture if
    it cannot read them, and others that it reads one by one in Python, as it does every byte between two segments."""

    is_damaged: bool = False
    """Whether one of these segments is malformed."""

    coefficients: float = 0.0
    """Coefficients per pixel that a decoder keeps until the last scan; 0 if one scan has them all."""


def jpeg_facts(data: bytes) -> JpegFacts:
    """Read the segments of a JPEG up to its end marker.

    Raises:
        UnsupportedFormat: a kind or a depth of JPEG that is not supported, by its name.
        TooLarge: more than `MAX_SCAN_PIXELS` scans x pixels.
        Undecodable: more than `MAX_JPEG_SCANS` scans, `MAX_SEGMENTS` segments or `MAX_TABLE_BYTES` of tables.
    """
    return _Reader(data).read()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._frame = self._scans = self._pixels = self._tables = self._kept = 0
        self._sent: dict[int, list[int]] = {}
        self._unneeded: list[tuple[int, int]] = []
        self._is_damaged = False
        self._samples = 0.0

    def read(self) -> JpegFacts:
        segments, position, has_end = 0, 2, False
        while not has_end and (found := _MARKER.search(self._data, position)):
            marker, start, end = self._data[found.start() + 1], found.start(), found.end()
            segments += 1
            if segments > MAX_SEGMENTS:
                raise Undecodable(f"JPEG with more than {MAX_SEGMENTS:,} segments; export it again")
            if start > position:
                self._drop(position, start)
            position, has_end = end, marker == _EOI
            if marker == _TEM:
                self._drop(start, end)
            elif not has_end and marker != _SOI:
                position += int.from_bytes(self._data[end : end + 2], "big")
                self._take(marker, start, position, self._data[end + 2 : position])
        is_dct = self._frame in _DCT
        is_complete = is_dct and bool(self._sent) and not any(map(any, self._sent.values()))
        kept = self._samples if self._scans > 1 or self._frame in _PROGRESSIVE else 0.0
        return JpegFacts(is_dct, has_end, is_complete, tuple(self._unneeded), self._is_damaged, kept)

    def _take(self, marker: int, start: int, end: int, body: bytes) -> None:
        if marker in _REFUSED:
            raise UnsupportedFormat(f"{_REFUSED[marker]} is not supported; save it as 8-bit JPEG or PNG")
        if marker in _DCT or marker == _LOSSLESS:
            self._frame, self._sent, self._pixels = marker, _components(body), _pixels(body)
            self._samples = _samples(body)
        elif marker == _SOS:
            self._scans += 1
            _note_scan(body, self._sent)
            _check_scans(self._scans, self._pixels)
        elif marker in (_DQT, _DHT) and not self._scans:
            self._tables += len(body)
            if self._tables > MAX_TABLE_BYTES:
                raise Undecodable(f"JPEG with more than {MAX_TABLE_BYTES >> 10} KiB of tables; export it again")
        elif marker == _COM:
            self._drop(start, end)
        elif marker in _APP:
            self._take_metadata(marker, start, end, body)

    def _take_metadata(self, marker: int, start: int, end: int, body: bytes) -> None:
        is_needed = body.startswith(_NEEDED_APP.get(marker, ()))
        self._kept += is_needed
        if is_needed and (_is_too_short(marker, body) or self._kept > MAX_METADATA):
            self._is_damaged |= not self._scans
            is_needed = False
        if not is_needed:
            self._drop(start, end)

    def _drop(self, start: int, end: int) -> None:
        """Note what Pillow must not see; behind the beginning of the first scan it sees nothing."""
        if not self._scans:
            self._unneeded.append((start, end))


def _check_scans(scans: int, pixels: int) -> None:
    if scans > MAX_JPEG_SCANS:
        raise Undecodable(f"JPEG with more than {MAX_JPEG_SCANS} scans; export it again")
    if scans * pixels > MAX_SCAN_PIXELS:
        raise TooLarge(
            f"a JPEG of {pixels // 1_000_000} megapixels in more than {max(1, MAX_SCAN_PIXELS // pixels)} scans; "
            "export it with fewer, or not progressive"
        )


def _pixels(header: bytes) -> int:
    """Return height x width of a frame header (B.2.2)."""
    return int.from_bytes(header[1:3], "big") * int.from_bytes(header[3:5], "big")


def _samples(header: bytes) -> float:
    """Return the samples per pixel of all components, of which some have fewer (B.2.2): 1.5 with 4:2:0."""
    factors = [(header[at] >> 4, header[at] & 15) for at in range(7, len(header) - 1, 3)]
    across, down = max((h for h, _ in factors), default=1) or 1, max((v for _, v in factors), default=1) or 1
    return sum(h * v for h, v in factors) / (across * down)


def _is_too_short(marker: int, body: bytes) -> bool:
    """Return whether metadata is malformed; libjpeg, which derives the colours from JFIF and Adobe, ignores it too."""
    return any(body.startswith(name) and len(body) < least for name, least in _LEAST.get(marker, ()))


def without(data: bytes, spans: tuple[tuple[int, int], ...]) -> bytes:
    """Return `data` without the parts from a beginning to an end, in ascending order."""
    if not spans:
        return data
    view, at, parts = memoryview(data), 0, []
    for start, end in spans:
        parts.append(view[at:start])
        at = end
    return b"".join((*parts, view[at:]))


def _components(header: bytes) -> dict[int, list[int]]:
    """Return component -> bits of each coefficient that are still missing, from a frame header (B.2.2)."""
    if header and header[0] != _BITS:
        raise UnsupportedFormat(f"a JPEG of {header[0]} bits per channel is not supported; save it with 8 or as PNG")
    return {header[at]: [_MISSING] * _COEFFICIENTS for at in range(6, len(header) - 2, 3)}


def _note_scan(header: bytes, sent: dict[int, list[int]]) -> None:
    """Note the coefficients that a scan sends, and down to which bit, from its header (B.2.3)."""
    count = header[0] if header else 0
    if len(header) < 1 + 2 * count + 3:
        return
    first, last, bits = header[1 + 2 * count], header[2 + 2 * count], header[3 + 2 * count] & 15
    for at in range(count):
        missing = sent.get(header[1 + 2 * at])
        if missing is not None:
            for index in range(first, min(last + 1, _COEFFICIENTS)):
                missing[index] = bits


def completions(data: bytes) -> tuple[bytes, ...]:
    """Return a JPEG without an end marker in three versions, which end in different ways.

    If its pixels are all there, no decoder reads what was added, and all versions give the same pixels. If some are
    missing, the added bits take their place and the versions differ.
    """
    cut = data.rstrip(b"\xff")  # half of a marker
    filler = 64
    return tuple(cut + added + b"\xff\xd9" for added in (b"", b"\x55" * filler, b"\xff\x00" * filler))
