"""Read what a JPEG says about itself before a decoder runs: its kind, its depth, and whether it ends.

Segments and markers are those of ITU-T T.81, annex B. Nothing here decodes pixels.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from worker.contract.errors import Undecodable, UnsupportedFormat

MAX_JPEG_SCANS = 500
"""Maximum scans in one JPEG. Encoders write about ten. Every scan passes over the whole picture, so a small file with
thousands of them keeps a decoder busy for hours. The value is the one that libjpeg-turbo's own fuzzers use."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_DCT = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))  # baseline, extended, progressive; Huffman and arithmetic
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
_PHOTOSHOP = 0xED
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

    metadata: tuple[tuple[int, int], ...] = ()
    """Beginning and end of segments that Pillow must not see: it refuses the picture where it cannot read them."""

    is_damaged: bool = False
    """Whether one of these segments is malformed."""


def jpeg_facts(data: bytes) -> JpegFacts:
    """Read the segments of a JPEG up to its end marker.

    Raises:
        UnsupportedFormat: a kind or a depth of JPEG that is not supported, by its name.
        Undecodable: more than `MAX_JPEG_SCANS` scans.
    """
    frame, scans, position = 0, 0, 2
    sent: dict[int, list[int]] = {}
    metadata: list[tuple[int, int]] = []
    has_end = is_damaged = False
    while not has_end and (found := _MARKER.search(data, position)):
        marker, start = data[found.start() + 1], found.end()
        has_end = marker == _EOI
        if has_end or marker in (_SOI, _TEM):
            position = start
            continue
        position = start + int.from_bytes(data[start : start + 2], "big")
        body = data[start + 2 : position]
        if marker in _REFUSED:
            raise UnsupportedFormat(f"{_REFUSED[marker]} is not supported; save it as 8-bit JPEG or PNG")
        if marker in _DCT or marker == _LOSSLESS:
            frame, sent = marker, _components(body)
        elif marker == _SOS:
            scans += 1
            _note_scan(body, sent)
        elif not scans and (malformed := _is_malformed(marker, body)) is not None:
            metadata.append((found.start(), position))
            is_damaged |= malformed
        if scans > MAX_JPEG_SCANS:
            raise Undecodable(f"JPEG with more than {MAX_JPEG_SCANS} scans; export it again")
    is_complete = frame in _DCT and bool(sent) and not any(map(any, sent.values()))
    return JpegFacts(frame in _DCT, has_end, is_complete, tuple(metadata), is_damaged)


def _is_malformed(marker: int, body: bytes) -> bool | None:
    """Return whether metadata that Pillow must not see is malformed; None for all that it may see.

    libjpeg, which derives the colours from JFIF and Adobe segments, ignores those that are too short as well.
    """
    if marker == _PHOTOSHOP:  # no more than a resolution is in it
        return False
    return True if any(body.startswith(name) and len(body) < least for name, least in _LEAST.get(marker, ())) else None


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
