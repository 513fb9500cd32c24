"""Untrusted bytes: a bad file of any kind fails one image only, with the right code and little memory."""

import io
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from tests.support.edge_case_images import encoded, png_claiming, scene
from worker.contract.errors import EmptyObject, ImageError, TooLarge, Undecodable, UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images import decode as module
from worker.images.decode import decode
from worker.images.headers import webp_size
from worker.images.jpeg_file import MAX_JPEG_SCANS, jpeg_facts

LIMITS = LimitSettings()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def oriented(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif.tobytes()


# Bad files ------------------------------------------------------------------------------------------------------------


def test_no_bytes():
    with pytest.raises(EmptyObject):
        decode(b"", LIMITS)


@pytest.mark.parametrize(
    "data", [b"just text", b"\0" * 100, b"BMW and other cars", b"<html><svg></html>", b"\xff\xd8", b"PK\3\4zip"]
)
def test_not_a_picture(data):
    with pytest.raises(Undecodable, match="not a picture"):
        decode(data, LIMITS)


FORMATS = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "GIF": {},
    "WEBP": {},
    "AVIF": {"max_threads": 1},
    "TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_is_undecodable(kind, share):
    data = encoded(scene((160, 120)), kind, **FORMATS[kind])
    with pytest.raises(Undecodable):
        decode(data[: int(len(data) * share)], LIMITS)


def test_flipped_bit_in_png_data_is_detected():
    data = bytearray(encoded(scene(), "PNG"))
    data[data.index(b"IDAT") + 10] ^= 1
    with pytest.raises(Undecodable, match="checksum"):
        decode(bytes(data), LIMITS)


def test_avif_with_broken_coded_data_is_undecodable():
    data = bytearray(encoded(scene(), "AVIF", max_threads=1))
    start = data.index(b"mdat") + 4
    data[start:] = b"\xff" * (len(data) - start)
    with pytest.raises(Undecodable, match="AVIF"):
        decode(bytes(data), LIMITS)


def ftyp(*brands):
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", len(body) + 4) + body + bytes(100)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (ftyp(b"crx ", b"isom"), "CR3"),
        (ftyp(b"isom", b"mp41"), "video"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a drawing -->\n<!DOCTYPE svg PUBLIC 'x'>\n<svg:svg/>", "SVG"),
        (b"8BPS" + bytes(30), "Photoshop"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a" + bytes(30), "JPEG XL"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(30), "CR2"),
    ],
)
def test_known_formats_are_refused_by_name(data, name):
    with pytest.raises(UnsupportedFormat, match=name):
        decode(data, LIMITS)


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}], ids=["preview first", "DNG"])
def test_camera_raw_is_refused(tags):
    with pytest.raises(UnsupportedFormat, match="camera raw"):
        decode(encoded(scene(), "TIFF", tiffinfo=tags), LIMITS)


def test_unsupported_kind_of_a_supported_format():
    data = bytearray(encoded(scene(), "BMP"))
    data[28:30] = struct.pack("<H", 48)  # bits per pixel
    with pytest.raises(UnsupportedFormat, match="BMP"):
        decode(bytes(data), LIMITS)


def test_messages_are_short_and_carry_no_addresses():
    for data in (encoded(scene(), "PNG")[:60], encoded(scene(), "TIFF")[:60], encoded(scene(), "WEBP")[:60]):
        with pytest.raises(ImageError) as caught:
            decode(data, LIMITS)
        assert len(str(caught.value)) < 300
        assert "0x" not in str(caught.value)


# Size and cost --------------------------------------------------------------------------------------------------------


def test_too_many_bytes():
    with pytest.raises(TooLarge, match="MAX_OBJECT_MIB"):
        decode(bytes((1 << 20) + 1), LimitSettings(max_object_mib=1))


def test_limit_is_exact():
    limits = LimitSettings(max_megapixels=1)
    assert decode(encoded(Image.new("L", (1000, 1000)), "PNG"), limits).width == 1000
    with pytest.raises(TooLarge, match="1001 x 1000 pixels, more than 1 megapixels"):
        decode(encoded(Image.new("L", (1001, 1000)), "PNG"), limits)


def webp_claiming(width, height):
    data = bytearray(encoded(scene(), "WEBP", exif=oriented(1)))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def gif_claiming(width, height):
    data = bytearray(encoded(scene(), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def jpeg_claiming(width, height):
    data = bytearray(encoded(scene(), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {
    "png": png_claiming(60_000, 60_000),
    "png-2-to-31": png_claiming(2**31 - 1, 2**31 - 1),
    "png-long": png_claiming(70_000, 10),
    "webp": webp_claiming(16_000, 16_000),
    "webp-beyond-pillow": webp_claiming(60_000, 60_000),
    "gif": gif_claiming(60_000, 60_000),
    "jpeg": jpeg_claiming(60_000, 60_000),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("megapixels", [100, 200])
def test_huge_header_is_too_large(name, megapixels, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    with pytest.raises(TooLarge):
        decode(BOMBS[name], LimitSettings(max_megapixels=megapixels))


def test_huge_headers_cost_no_memory():
    """Runs in a separate process, since peak memory never falls; not even address space is reserved for the pixels."""
    script = """
import resource, sys
from worker.processes.memory import peak_bytes
from worker.contract.errors import TooLarge
from worker.contract.settings import LimitSettings
from worker.images.decode import decode
bombs = [bytes.fromhex(line) for line in sys.stdin]
before = peak_bytes()
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20),) * 2)
for bomb in bombs:
    try:
        decode(bomb, LimitSettings())
    except TooLarge:
        continue
    raise SystemExit("decoded")
print((peak_bytes() - before) // 2**20)
"""
    root = re.sub(r"/worker/images/decode\.py$", "", module.__file__)
    done = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(bomb.hex() for bomb in BOMBS.values()),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8  # MiB


def test_pillows_guard_stays_unless_the_limit_needs_it(monkeypatch):
    guard = 1_000_000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", guard)
    data = encoded(Image.new("L", (1200, 1200)), "TIFF")
    decode(data, LimitSettings(max_megapixels=2))
    assert guard == Image.MAX_IMAGE_PIXELS
    assert decode(encoded(Image.new("L", (1600, 1600)), "TIFF"), LimitSettings(max_megapixels=3)).width == 1600
    assert Image.MAX_IMAGE_PIXELS == 3_000_000


def test_pillows_guard_becomes_too_large():
    data = bytearray(encoded(scene(), "GIF"))
    frame = data.index(b"," + struct.pack("<HHHH", 0, 0, 160, 120))  # only the header of the frame is changed
    data[frame + 5 : frame + 9] = struct.pack("<HH", 60_000, 60_000)
    with pytest.raises(TooLarge, match="GIF"):
        decode(bytes(data), LIMITS)


@pytest.mark.parametrize("keyword", ["comment", "Raw profile type exif"])
def test_a_text_that_is_a_bomb_costs_neither_the_picture_nor_memory(keyword):
    info = PngImagePlugin.PngInfo()
    info.add_text(keyword, "x" * (64 << 20), zip=True)
    data = encoded(scene(), "PNG", pnginfo=info)
    assert len(data) < 1 << 18
    tracemalloc.start()
    try:
        picture = decode(data, LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert picture.size == (160, 120)


def test_jpeg_of_too_many_scans_is_refused():
    data = encoded(scene(), "JPEG", progressive=True)
    assert decode(data, LIMITS).width == 160
    last = data.rindex(b"\xff\xda")
    scan, end = data[last:-2], data[-2:]
    with pytest.raises(Undecodable, match="scans"):
        decode(data[:-2] + scan * MAX_JPEG_SCANS + end, LIMITS)


def test_scans_after_the_picture_do_not_count():
    data = encoded(scene(), "JPEG")
    # A motion photo has a video after its picture.
    trailing = bytes(1 << 17) + b"\xff\xda\0\x02" * (MAX_JPEG_SCANS + 10)
    assert decode(data + trailing, LIMITS).width == 160


def test_marker_inside_a_segment_is_not_a_scan():
    comment = b"\xff\xd8\xff\xfe\x07\xd2" + b"\xff\xda" * 1000
    assert jpeg_facts(comment + b"\xff\xd9").has_end


@pytest.mark.parametrize(
    ("options", "kind"), [({}, b"VP8 "), ({"lossless": True}, b"VP8L"), ({"exif": oriented(1)}, b"VP8X")]
)
def test_webp_size(options, kind):
    data = encoded(scene((123, 45)), "WEBP", **options)
    assert data[12:16] == kind
    assert webp_size(data) == (123, 45)


def test_webp_size_of_something_else():
    assert webp_size(b"RIFF\0\0\0\0WEBPjunk") is None


# Misleading metadata --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["transparency", "icc_profile", "exif", "xmp", "Raw profile type exif", "interlace"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_text_chunk_named_like_a_property(key, mode):
    info = PngImagePlugin.PngInfo()
    info.add_text(key, "nonsense")
    try:
        picture = decode(encoded(scene().convert(mode), "PNG", pnginfo=info), LIMITS)
    except Undecodable:
        return
    assert picture.rgb.size == (160, 120)
    assert picture.icc_profile is None


def test_pillows_warnings_are_neither_errors_nor_noise():
    tiff = encoded(scene(), "TIFF", tiffinfo={305: "some software"})
    at = tiff.index(b"\x31\x01\x02\x00")  # tag 305, type ASCII; then its count
    broken = tiff[: at + 4] + struct.pack("<I", 1 << 20) + tiff[at + 8 :]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        assert decode(broken, LIMITS).width == 160
    assert caught == []
    with warnings.catch_warnings():  # control: without the filter, the file raises the warning
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            Image.open(io.BytesIO(broken))


# Fuzz -----------------------------------------------------------------------------------------------------------------


def see_through():
    picture = scene((40, 30))
    picture.putalpha(picture.convert("L"))
    return picture


SEEDS = {
    **{kind: encoded(scene((40, 30)), kind, **options) for kind, options in FORMATS.items()},
    "progressive": encoded(scene((40, 30)), "JPEG", progressive=True, exif=oriented(6), icc_profile=SRGB),
    "cmyk": encoded(scene((40, 30)).convert("CMYK"), "JPEG", icc_profile=SRGB[:16] + b"CMYK" + SRGB[20:]),
    "palette": encoded(scene((40, 30)).quantize(8), "PNG", transparency=bytes(8), exif=oriented(3)),
    "apng": encoded(scene((40, 30)), "PNG", save_all=True, append_images=[scene((40, 30))]),
    "webp-extended": encoded(see_through(), "WEBP", exif=oriented(8), icc_profile=SRGB),
    "tiff-jpeg": encoded(scene((40, 30)), "TIFF", compression="jpeg", exif=oriented(5)),
    "tiff-16": encoded(Image.new("I;16", (9, 7), 500), "TIFF", big_tiff=True),
}


def planes():
    data = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 1 << 16, (3, 30, 40), np.uint16)
    tifffile.imwrite(data, pixels, photometric="rgb", planarconfig="separate", compression="zlib")
    return data.getvalue()


SEEDS["planes"] = planes()


def recomputed(data):
    """Return a PNG with correct checksums, so that mutations reach the parser behind them."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data) and at + 12 + (size := struct.unpack_from(">I", data, at)[0]) <= len(data):
        body = data[at + 4 : at + 8 + size]
        out += data[at : at + 8 + size] + struct.pack(">I", zlib.crc32(body))
        at += 12 + size
    return bytes(out) + data[at:]


EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.booleans(),
        st.sampled_from(["set", "cut", "add"]),
        st.binary(min_size=1, max_size=6) | st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"]),
    ),
    min_size=1,
    max_size=6,
)


@given(st.sampled_from(sorted(SEEDS)), EDITS, st.floats(0.05, 3))
@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_hostile_bytes_fail_one_image_only(seed, edits, share):
    data = bytearray(SEEDS[seed])
    for place, in_header, kind, value in edits:
        at = int(place * min(len(data), 150 if in_header else len(data)))
        data[at : at + (0 if kind == "add" else len(value))] = b"" if kind == "cut" else value
    data = data[: int(len(data) * share)]
    if seed in ("PNG", "palette", "apng"):
        data = recomputed(bytes(data))
    try:
        picture = decode(bytes(data), LimitSettings(max_megapixels=4))
    except ImageError:
        return
    assert picture.rgb.mode == "RGB"
    assert picture.width * picture.height <= 4_000_000
    assert picture.alpha is None or picture.alpha.size == picture.rgb.size
