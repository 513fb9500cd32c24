"""The photograph's EXIF as an output may carry it: written anew from an allow-list, never copied.

Kept: who, when, with what, the exposure. Dropped: orientation (the pixels are upright), sizes and offsets that are the
input's own, thumbnails and maker notes (both can show or tell what the cut-out hides), and the GPS position unless it
is asked for. XMP and IPTC are not EXIF and never carried.
"""

from __future__ import annotations

from PIL import Image
from PIL.ExifTags import IFD, Base

from worker.contract.outputs import ExifPolicy

MAX_BYTES = 60_000
"""A JPEG holds EXIF in one segment of at most 65,533 bytes (ITU-T T.81, B.1.1.4)."""

_KEPT = (
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.XResolution,
    Base.YResolution,
    Base.ResolutionUnit,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.Copyright,
)
_DROPPED = {Base.MakerNote, Base.ExifImageWidth, Base.ExifImageHeight, Base.ExifInteroperabilityOffset}


def carried(exif: Image.Exif, policy: ExifPolicy) -> bytes:
    """EXIF for an output, beginning with its TIFF header; empty when there is nothing to carry, or too much of it.

    Raises:
        what Pillow raises on values that are not well-formed; see `decode.HOSTILE`.
    """
    if policy is ExifPolicy.STRIP:
        return b""
    kept = Image.Exif()
    kept.update({tag: exif[tag] for tag in _KEPT if tag in exif})
    if details := {tag: value for tag, value in exif.get_ifd(IFD.Exif).items() if tag not in _DROPPED}:
        kept[IFD.Exif] = details
    if policy is ExifPolicy.KEEP_WITH_GPS and (position := dict(exif.get_ifd(IFD.GPSInfo))):
        kept[IFD.GPSInfo] = position
    if not len(kept):
        return b""
    data = kept.tobytes().removeprefix(b"Exif\0\0")
    return data if len(data) <= MAX_BYTES else b""
