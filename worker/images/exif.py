"""Filter the EXIF of a photograph for its outputs: rebuilt from an allow-list, never copied.

Kept: author, date, camera and exposure. Dropped: orientation (the pixels are upright), sizes and offsets of the input,
thumbnails and maker notes (both can reveal what the cut-out hides), and the GPS position unless the policy keeps it.
XMP and IPTC are not EXIF and are always dropped.
"""

from __future__ import annotations

from PIL import Image
from PIL.ExifTags import IFD, Base

from worker.contract.outputs import ExifPolicy

MAX_BYTES = 60_000
"""Maximum size of the result: a JPEG stores EXIF in one segment of at most 65,533 bytes (ITU-T T.81, B.1.1.4)."""

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


def filter_exif(exif: Image.Exif, policy: ExifPolicy) -> bytes:
    """Return the EXIF for an output, beginning with its TIFF header; empty if none is kept or it exceeds `MAX_BYTES`.

    Raises:
        Any of `decode.PILLOW_ERRORS`: a value is malformed.
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
