"""Turn the colour spaces that files name without an ICC profile into one: by number (CICP), or by gamma and primaries.

AVIF names them in a colour information box (nclx), PNG in the chunks cICP, gAMA and cHRM. Values of the pixels are not
changed: outputs get a profile that says the same as the file did. Where none can say it, which is so for HDR, the
picture gets a note. Colour spaces that are sRGB, or that a viewer shows as sRGB, need neither.

Numbers are those of ITU-T H.273 (CICP): table 2 (primaries) and table 3 (transfer characteristics).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from worker.contract.errors import Undecodable

MAX_PROFILE_BYTES = 4 << 20
"""Limit of an ICC profile. Every output carries it; profiles of printers have 0.5 to 3 MiB."""

MAX_BOXES = 1 << 16
"""Limit of boxes in one box. A grid of tiles has one for each tile."""

_Matrix = npt.NDArray[np.float64]
_D65 = (0.3127, 0.3290)
_BT709 = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, *_D65)
_PRIMARIES = {  # red, green, blue, white: x and y
    1: _BT709,
    2: _BT709,  # unspecified
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *_D65),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
    22: (0.630, 0.340, 0.295, 0.605, 0.155, 0.077, *_D65),
}
# Unspecified, and the curves of video, which viewers of pictures show as sRGB: None. A number is an exponent.
_CURVES = {1: None, 2: None, 4: 2.2, 5: 2.8, 6: None, 8: 1.0, 13: None, 14: None, 15: None, 17: 2.6}
_HDR = {16: "PQ", 18: "HLG"}
_NAMES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}

_D50 = (0.9642, 1.0, 0.8249)  # ICC.1:2022, 7.2.16
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)  # ICC.1, annex E
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1, as a curve of type 3 (ICC.1, 10.18)
_UNIT = 100_000  # of gAMA and cHRM
_SRGB_EXPONENT = 2.2
_NEAR = 0.005  # coordinates that differ by less are the same
_NEAR_EXPONENT = 0.05
_MAX_EXPONENT = 10.0


class Signalled(NamedTuple):
    """What a file says about its colours: a profile of them, or a note that they are not converted."""

    icc_profile: bytes
    note: str


def from_cicp(numbers: bytes) -> Signalled | None:
    """Read a cICP chunk, or the beginning of the numbers of an nclx box in one byte each.

    Args:
        numbers: primaries and transfer characteristics, then ignored ones.

    Returns:
        None for sRGB, and where nothing is said.
    """
    if len(numbers) < 2:  # noqa: PLR2004 - primaries and transfer
        return None
    primaries, transfer = numbers[0], numbers[1]
    name = _NAMES.get(primaries, f"primaries {primaries}")
    if transfer in _HDR:
        return Signalled(b"", f"HDR colours ({name}, {_HDR[transfer]}) are not converted: outputs look flat")
    if primaries not in _PRIMARIES or transfer not in _CURVES:
        return Signalled(b"", f"colours of an unknown kind ({name}, transfer {transfer}) are treated as sRGB")
    return _signalled(_PRIMARIES[primaries], _CURVES[transfer])


def from_gamma(gamma: bytes, primaries: bytes) -> Signalled | None:
    """Read the chunks gAMA and cHRM of a PNG (11.3.2.1, 11.3.2.2); empty bytes if the file lacks one.

    Returns:
        None for sRGB, and where nothing is said.
    """
    exponent: float | None = None
    if len(gamma) == struct.calcsize(">I"):
        (stored,) = struct.unpack(">I", gamma)
        if not _UNIT / _MAX_EXPONENT <= stored <= _UNIT * _MAX_EXPONENT:
            return Signalled(b"", "a gamma that cannot be meant is ignored")
        exponent = _UNIT / stored
        exponent = None if abs(exponent - _SRGB_EXPONENT) < _NEAR_EXPONENT else exponent
    points: tuple[float, ...] = _BT709
    if len(primaries) == struct.calcsize(">8I"):
        white_x, white_y, *rest = (value / _UNIT for value in struct.unpack(">8I", primaries))
        points = (*rest, white_x, white_y)
    return _signalled(points, exponent)


def avif_colours(data: bytes) -> Signalled | None:
    """Return what the first colour information box of kind nclx in an AVIF says (ISO/IEC 14496-12, 12.1.5)."""
    for kind, meta in boxes(data):
        if kind == b"meta":
            for path, body in properties(meta[4:]):
                if path == b"colr" and body[:4] == b"nclx" and len(body) >= 8:  # noqa: PLR2004 - two numbers
                    primaries, transfer = struct.unpack_from(">HH", body, 4)
                    return from_cicp(bytes((min(primaries, 255), min(transfer, 255))))
    return None


def properties(meta: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the item properties of a meta box: the boxes in iprp, ipco (ISO/IEC 23008-12, 9.3)."""
    for kind, body in boxes(meta):
        if kind == b"iprp":
            for inner, container in boxes(body):
                if inner == b"ipco":
                    yield from boxes(container)


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of the boxes in `data`, up to the first one that does not fit.

    Raises:
        Undecodable: there are more than `MAX_BOXES`.
    """
    at = count = 0
    while at + 8 <= len(data):
        count += 1
        if count > MAX_BOXES:
            raise Undecodable(f"a picture with more than {MAX_BOXES:,} boxes; export it again")
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= len(data):
            head, size = 16, struct.unpack_from(">Q", data, at + 8)[0]
        elif size == 0:
            size = len(data) - at
        if size < head or at + size > len(data):
            return
        if kind != b"mdat":  # the coded pictures: no copy is needed
            yield kind, data[at + head : at + size]
        at += size


def _signalled(points: tuple[float, ...], exponent: float | None) -> Signalled | None:
    if exponent is None and all(abs(a - b) < _NEAR for a, b in zip(points, _BT709, strict=True)):
        return None
    profile = rgb_profile(points, exponent)
    return Signalled(profile, "" if profile else "primaries that cannot be meant are ignored")


def rgb_profile(points: tuple[float, ...], exponent: float | None) -> bytes:
    """Return an ICC profile of version 4.3 for RGB with a matrix and one curve (ICC.1:2022, 8.4.3).

    Args:
        points: chromaticities of red, green, blue and white: x and y of each.
        exponent: of the curve from values to light; None for the curve of sRGB.

    Returns:
        The profile, or empty bytes if the chromaticities span no triangle, or lie outside what the format can hold.
    """
    matrix = _to_d50(points)
    if matrix is None or not (np.abs(matrix) < 2).all():  # noqa: PLR2004 - far from any colour space in use
        return b""
    curve = b"para" + bytes(4)
    curve += struct.pack(">HH", 3, 0) + _fixed(*_SRGB_CURVE) if exponent is None else bytes(4) + _fixed(exponent)
    tags = {
        b"desc": _text("RGB as described by the picture"),
        b"cprt": _text("No copyright"),
        b"wtpt": _xyz(*_D50),
        b"rXYZ": _xyz(*matrix[:, 0]),
        b"gXYZ": _xyz(*matrix[:, 1]),
        b"bXYZ": _xyz(*matrix[:, 2]),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4x4s4s4s4s12x4s", at + len(body), b"\x04\x30\0\0", b"mntr", b"RGB ", b"XYZ ", b"acsp")
    return (head + bytes(28) + _fixed(*_D50)).ljust(128, b"\0") + table + body


def _to_d50(points: tuple[float, ...]) -> _Matrix | None:
    """Return the matrix from linear RGB to XYZ under D50, adapted as in ICC.1, annex E; None if there is none."""
    x, y = np.array(points[0::2]), np.array(points[1::2])
    if (y < _NEAR).any():
        return None
    columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    primaries, white = columns[:, :3], columns[:, 3]
    try:
        matrix = primaries * np.linalg.solve(primaries, white)
    except np.linalg.LinAlgError:
        return None
    scale = np.diag((_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white))
    adapted: _Matrix = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD @ matrix
    return adapted if np.isfinite(adapted).all() else None


def _fixed(*values: float) -> bytes:
    """Encode s15Fixed16 numbers (ICC.1, 4.6)."""
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _text(text: str) -> bytes:
    """Encode a multiLocalizedUnicodeType with one record (ICC.1, 10.15)."""
    content = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(content), 28) + content
