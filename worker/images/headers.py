"""Tell the format of an object from its first bytes, before any decoder runs.

`decode` calls these functions first. A decoder therefore only sees formats of the allow-list, and a picture in an
unsupported format is refused by the name of its format.
"""

from __future__ import annotations

import re
import struct

from worker.contract.errors import EmptyObject, Undecodable, UnsupportedFormat

_READABLE = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),  # BigTIFF
    (b"MM\x00+", "TIFF"),
)

_REFUSED = (
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"%PDF-", "PDF"),
    (b"%!PS", "PostScript"),
    (b"8BPS", "Photoshop"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"FUJIFILMCCD-RAW", "camera raw (RAF)"),
    (b"IIRO", "camera raw (ORF)"),
    (b"IIRS", "camera raw (ORF)"),
    (b"IIU\x00", "camera raw (RW2)"),
)

_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"))
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_BMP_HEADER_SIZES = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_SVG = re.compile(rb"(\xef\xbb\xbf)?\s*(<\?xml\b.*?\?>|<!--.*?-->|<!DOCTYPE svg\b[^>]*>|\s)*<(\w+:)?svg\b", re.DOTALL)
_SVG_WITHIN = 4096


def sniff(data: bytes) -> str:
    """Return the name of the format by its signature: JPEG, PNG, GIF, WEBP, AVIF, HEIC, HEIF, TIFF or BMP.

    Raises:
        EmptyObject: `data` is empty.
        UnsupportedFormat: a known picture or document format that is not supported.
        Undecodable: not a known picture format.
    """
    if not data:
        raise EmptyObject("the object is empty; upload it again")
    name = _readable(data)
    if name:
        return name
    refused = _refused(data)
    if refused:
        raise UnsupportedFormat(f"{refused} is not supported; convert it to JPEG, PNG, WebP, AVIF or TIFF first")
    raise Undecodable("not a picture: no signature of JPEG, PNG, GIF, WebP, AVIF, TIFF or BMP")


def _readable(data: bytes) -> str | None:
    for signature, name in _READABLE:
        if data.startswith(signature):
            # Canon's CR2 is a TIFF whose first page is a small preview; "CR" follows its TIFF header.
            return None if data[8:10] == b"CR" and name == "TIFF" else name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return _heif_name(_brands(data))
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADER_SIZES:
        return "BMP"
    return None


def _heif_name(brands: frozenset[bytes]) -> str | None:
    """Return the name of a picture in the HEIF container by its brands (ISO/IEC 23008-12, annex B); None for others."""
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    return "HEIF" if brands & {b"mif1", b"msf1"} else None


def _refused(data: bytes) -> str | None:
    for signature, name in _REFUSED:
        if data.startswith(signature):
            return name
    if data[4:8] == b"ftyp":
        return _iso_media(data)
    if data.startswith((b"II*\x00", b"MM\x00*")):
        return "camera raw (CR2)"
    if _SVG.match(data[:_SVG_WITHIN]):
        return "SVG"
    return None


def _iso_media(data: bytes) -> str:
    """Return the format name of an ISO base media file (ISO/IEC 14496-12) by its brands."""
    if b"crx " in _brands(data):
        return "camera raw (CR3)"
    return f"ISO media (brand {data[8:12].decode('latin-1')!r}, often a video)"


def _brands(data: bytes) -> frozenset[bytes]:
    """Return the major and compatible brands of an ftyp box: size, 'ftyp', major, minor version, compatible ..."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    return frozenset((data[8:12], *(data[i : i + 4] for i in range(16, end, 4))))


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height of a WebP from its first chunk (RFC 9649); None if the chunk is unknown.

    Needed because Pillow's decoder allocates its canvas when it opens the file.
    """
    kind, head = data[12:16], data[20:30].ljust(10, b"\0")
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return None
