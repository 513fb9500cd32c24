"""EXIF in outputs: none by default, else the fields of the allow-list, and the GPS position only on request."""

import io

import pytest
from PIL import ExifTags, Image

from tests.support.edge_case_images import encoded, scene
from worker.contract.outputs import ExifPolicy, ImageFormat
from worker.contract.settings import LimitSettings
from worker.images.decode import DecodeTarget, decode
from worker.images.encode import encode
from worker.images.exif import MAX_BYTES

LIMITS = LimitSettings()
STRIP, KEEP, WITH_GPS = ExifPolicy
BASE, IFD = ExifTags.Base, ExifTags.IFD
PLACE = {1: "N", 2: (50.0, 51.0, 52.0), 3: "E", 4: (7.0, 8.0, 9.0)}


def photographed():
    """Return EXIF as a camera writes it."""
    exif = Image.Exif()
    exif[BASE.Make] = "Maker & Sons"
    exif[BASE.Orientation] = 6
    exif[BASE.Artist] = "A. Artist"
    exif[BASE.HostComputer] = "named after its owner"
    exif[IFD.Exif] = {
        BASE.ExposureTime: 0.01,
        BASE.DateTimeOriginal: "2025:01:02 03:04:05",
        BASE.MakerNote: b"secret of the maker",
        BASE.ExifImageWidth: 160,
    }
    exif[IFD.GPSInfo] = PLACE
    return exif


def kept(policy, exif=None, kind="JPEG"):
    data = encoded(scene(), kind, exif=(exif or photographed()).tobytes())
    return decode(data, LIMITS, DecodeTarget(exif=policy))


def parsed(data):
    exif = Image.Exif()
    exif.load(data)
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_nothing_is_kept_by_default(kind):
    assert kept(STRIP, kind=kind).exif == b""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_allow_list_is_kept_without_the_position(kind):
    data = kept(KEEP, kind=kind).exif
    exif = parsed(data)

    assert (exif[BASE.Make], exif[BASE.Artist]) == ("Maker & Sons", "A. Artist")
    assert exif.get_ifd(IFD.Exif)[BASE.DateTimeOriginal] == "2025:01:02 03:04:05"
    assert exif.get_ifd(IFD.GPSInfo) == {}
    assert not {BASE.Orientation, BASE.HostComputer, 256, 273, 279} & set(exif)
    assert BASE.ExifImageWidth not in exif.get_ifd(IFD.Exif)
    assert b"secret" not in data and b"owner" not in data


def test_the_position_is_kept_on_request():
    assert parsed(kept(WITH_GPS).exif).get_ifd(IFD.GPSInfo) == PLACE


def test_a_thumbnail_is_not_kept():
    """A thumbnail would show what the cut-out hides."""
    thumbnail = encoded(scene((40, 30)), "JPEG")
    exif = photographed()
    exif._ifds[IFD.IFD1] = {}
    ifd = exif.tobytes() + thumbnail

    picture = decode(encoded(scene(), "PNG", exif=ifd), LIMITS, DecodeTarget(exif=WITH_GPS))

    assert picture.exif and b"\xff\xd8\xff" not in picture.exif


def test_too_much_to_fit_a_jpeg_is_not_kept():
    picture = kept(KEEP, _large(), "PNG")

    assert picture.exif == b""


def _large():
    exif = photographed()
    exif[IFD.Exif] = {BASE.UserComment: b"x" * MAX_BYTES}
    return exif


def test_malformed_exif_is_dropped_with_a_note(monkeypatch):
    def broken(exif, policy):
        raise ValueError("no such type")

    monkeypatch.setattr("worker.images.decode.filter_exif", broken)
    picture = kept(KEEP)

    assert (picture.exif, picture.notes) == (b"", ("EXIF malformed: not kept",))
    assert picture.size == (120, 160)  # still upright


@pytest.mark.parametrize("form", list(ImageFormat))
@pytest.mark.parametrize("policy", [STRIP, KEEP, WITH_GPS])
def test_every_format_carries_it(form, policy):
    picture = kept(policy)

    image = Image.open(io.BytesIO(encode(picture.rgb, form, exif=picture.exif)))
    exif = image.getexif()

    assert (exif.get(BASE.Make) == "Maker & Sons") == (policy is not STRIP)
    assert bool(exif.get_ifd(IFD.GPSInfo)) == (policy is WITH_GPS)
    assert image.size == (120, 160)
    assert exif.get(BASE.Orientation, 1) == 1
