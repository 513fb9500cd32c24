"""What a picture costs is bounded by its header, or less: nothing in a file multiplies time or memory.

The files here are small and harmless: each goes beyond one of our own limits, most of which are lowered.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import JpegImagePlugin, PngImagePlugin

from tests.support import heif_files
from tests.support.edge_case_images import encoded, scene
from worker.contract.errors import TooLarge, Undecodable, UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images import colour_space, gif_file, heif_items, jpeg_file, png_file, tiff_file
from worker.images import decode as module
from worker.images.decode import decode
from worker.images.heif_items import CodedPixels, coded_pixels

LIMITS = LimitSettings()
SIZE = (160, 120)


# TIFF -----------------------------------------------------------------------------------------------------------------


def entry(data: bytearray, tag: int) -> int:
    """Return the position of a tag in a little-endian TIFF."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    return next(
        place for place in range(at + 2, at + 2 + 12 * count, 12) if struct.unpack_from("<H", data, place)[0] == tag
    )


def tiff_with(tag: int, kind: int, values: int, value: int | None = None, **options) -> bytes:
    """Return a TIFF in which a tag has so many values: `value`, or as many 8s behind the file."""
    data = bytearray(encoded(scene(), "TIFF", **options))
    struct.pack_into("<HII", data, entry(data, tag) + 2, kind, values, len(data) if value is None else value)
    return bytes(data) + (b"" if value is not None else struct.pack("<I", 8) * values)


def tiled(side: int) -> bytes:
    import tifffile

    pixels = np.asarray(scene())
    with module.io.BytesIO() as file:
        tifffile.imwrite(file, pixels, tile=(64, 64), photometric="rgb", compression="zlib")
        data = bytearray(file.getvalue())
    for tag in (tiff_file.TILE_WIDTH, tiff_file.TILE_HEIGHT):
        struct.pack_into("<HII", data, entry(data, tag) + 2, 4, 1, side)
    return bytes(data)


def test_tiles_far_larger_than_the_picture_are_refused_before_one_is_held():
    assert decode(tiled(64), LIMITS).size == SIZE
    with pytest.raises(TooLarge, match="tiles of 16000 x 16000"):
        decode(tiled(16_000), LIMITS)


def test_more_strips_than_the_picture_has_rows_are_refused(monkeypatch):
    with pytest.raises(Undecodable, match="5,000 strips or tiles where it needs"):
        decode(tiff_with(tiff_file.STRIP_OFFSETS, 4, 5000), LIMITS)
    monkeypatch.setattr(tiff_file, "MAX_PIECES", 1000)
    with pytest.raises(TooLarge, match="5,000 strips or tiles; save it with at most 1,000"):
        decode(tiff_with(tiff_file.STRIP_OFFSETS, 4, 5000), LIMITS)


def test_a_tag_with_too_many_values_is_refused(monkeypatch):
    monkeypatch.setattr(tiff_file, "_MAX_VALUES", 100)
    with pytest.raises(Undecodable, match="5,000 values in one tag"):
        decode(tiff_with(tiff_file.BITS, 3, 5000), LIMITS)


def test_a_tiff_of_many_samples_is_refused():
    with pytest.raises(Undecodable, match="70 samples per pixel"):
        decode(tiff_with(tiff_file.SAMPLES, 3, 1, 70), LIMITS)


# JPEG -----------------------------------------------------------------------------------------------------------------

JPEG = encoded(scene(), "JPEG")


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff" * 5000,
        b"\xff\x01" * 500,
        b"\xff\xfe\0\3c" * 500,
        b"\xff\xe1\0\6junk" * 500,
        b"\xff\xe5\0\2" * 500,
        b"\xff" + bytes(5000),
    ],
    ids=["fill bytes", "TEM", "comments", "unknown APP1", "unknown APP5", "zeros"],
)
def test_what_no_decoder_needs_of_a_jpeg_does_not_reach_pillow(junk, monkeypatch):
    """Pillow reads it in Python, byte by byte or segment by segment."""
    seen = []
    opened = JpegImagePlugin.JpegImageFile._open

    def counting(image):
        seen.append(len(image.fp.read()))
        image.fp.seek(0)
        opened(image)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "_open", counting)
    picture = decode(JPEG[:2] + junk + JPEG[2:], LIMITS)

    assert seen[0] <= len(JPEG)
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(decode(JPEG, LIMITS).rgb))


def test_metadata_beyond_its_number_is_dropped_with_a_note(monkeypatch):
    monkeypatch.setattr(jpeg_file, "MAX_METADATA", 3)

    picture = decode(JPEG[:2] + b"\xff\xe1\0\x0aExif\0\0ab" * 5 + JPEG[2:], LIMITS)

    assert png_file.DAMAGED_METADATA in picture.notes


def test_tables_beyond_their_size_are_refused(monkeypatch):
    monkeypatch.setattr(jpeg_file, "MAX_TABLE_BYTES", 2000)
    assert decode(JPEG, LIMITS).size == SIZE
    at = JPEG.index(b"\xff\xdb")
    table = JPEG[at : at + 2 + int.from_bytes(JPEG[at + 2 : at + 4], "big")]

    with pytest.raises(Undecodable, match="KiB of tables"):
        decode(JPEG[:at] + table * 40 + JPEG[at:], LIMITS)


def test_scans_times_pixels_are_limited(monkeypatch):
    progressive = encoded(scene(), "JPEG", progressive=True)
    scans = progressive.count(b"\xff\xda")
    monkeypatch.setattr(jpeg_file, "MAX_SCAN_PIXELS", scans * SIZE[0] * SIZE[1])
    assert decode(progressive, LIMITS).size == SIZE

    monkeypatch.setattr(jpeg_file, "MAX_SCAN_PIXELS", scans * SIZE[0] * SIZE[1] - 1)
    with pytest.raises(TooLarge, match=f"in more than {scans - 1} scans"):
        decode(progressive, LIMITS)


# PNG, GIF, BMP --------------------------------------------------------------------------------------------------------


def png_in_chunks(size: int) -> bytes:
    data = encoded(scene(), "PNG")
    at = data.index(b"IDAT") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    body = data[at + 8 : at + 8 + length]
    parts = [b"IDAT" + body[start : start + size] for start in range(0, len(body), size)]
    chunks = b"".join(struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return data[:at] + chunks + data[at + 12 + length :]


def test_the_image_data_of_a_png_reaches_pillow_in_one_chunk(monkeypatch):
    seen = []
    read = PngImagePlugin.ChunkStream.read

    def noting(stream):
        found = read(stream)
        seen.append(found[0])
        return found

    monkeypatch.setattr(PngImagePlugin.ChunkStream, "read", noting)
    picture = decode(png_in_chunks(1), LIMITS)

    assert seen.count(b"IDAT") == 1
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(scene()))


def test_blocks_before_the_picture_of_a_gif_are_limited(monkeypatch):
    monkeypatch.setattr(gif_file, "MAX_BLOCKS", 100)
    gif = encoded(scene(), "GIF")
    at = 13 + (3 << (gif[10] & 7) + 1)
    assert decode(gif[:at] + b"!\xfe\1c\0" * 20 + gif[at:], LIMITS).size == SIZE
    for junk in (b"!\xfe\1c\0" * 60, b"!\xfe" + b"\1c" * 120 + b"\0", bytes(120)):
        with pytest.raises(Undecodable, match="blocks before its picture"):
            decode(gif[:at] + junk + gif[at:], LIMITS)


def run_length_bmp(width: int, height: int, body: bytes) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(body), 1, 1, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(body), 0, 0, 14 + len(info)) + info + body


def test_a_run_length_bmp_which_python_decodes_is_limited(monkeypatch):
    small = run_length_bmp(8, 2, b"\x08\1\0\0\x08\2\0\1")
    assert decode(small, LIMITS).size == (8, 2)
    with pytest.raises(UnsupportedFormat, match="save it as PNG"):
        decode(run_length_bmp(6000, 3000, b"\0\1"), LIMITS)
    monkeypatch.setattr(module, "MAX_RUN_LENGTH_BYTES", 1000)
    with pytest.raises(UnsupportedFormat, match="save it as PNG"):
        decode(small, LIMITS)


# AVIF and HEIC --------------------------------------------------------------------------------------------------------


def avif(size=SIZE, mode="RGB", **options) -> bytes:
    picture = scene(size)
    if mode == "RGBA":
        picture.putalpha(picture.convert("L"))
    return encoded(picture, "AVIF", max_threads=1, **options)


def claiming(data: bytes, width: int, height: int) -> bytes:
    """Change the size that the container states."""
    changed = bytearray(data)
    struct.pack_into(">II", changed, changed.index(b"ispe") + 8, width, height)
    return bytes(changed)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (avif(), (19_200, 0)),
        (avif((161, 121)), (19_481, 0)),
        (avif(mode="RGBA"), (19_200, 19_200)),
        (avif(quality=100, subsampling="4:4:4"), (19_200, 0)),
        (avif(save_all=True, append_images=[scene()]), (19_200, 0)),
        (claiming(avif(), 16, 16), (19_200, 0)),
        (heif_files.GRID, (4 * 64 * 64, 0)),
        (heif_files.TURNED, (4 * 64 * 64, 0)),
        (heif_files.ALPHA, (64 * 64, 64 * 64)),
        (encoded(scene(), "PNG"), (0, 0)),
    ],
    ids=["plain", "odd", "alpha", "4:4:4", "animation", "claims less", "HEIC grid", "HEIC turned", "HEIC alpha", "PNG"],
)
def test_coded_pixels(data, expected):
    assert coded_pixels(data) == CodedPixels(*expected)


def test_the_size_inside_an_avif_counts_not_only_the_one_beside_it():
    data = claiming(avif((1500, 1000)), 64, 64)
    assert decode(data, LimitSettings(max_megapixels=2)).size == (64, 64)
    with pytest.raises(TooLarge, match="1,500,000 pixels in its coded data, more than 1 megapixels"):
        decode(data, LimitSettings(max_megapixels=1))


@pytest.mark.parametrize(("limit", "match"), [("MAX_UNITS", "units"), ("_MAX_ITEMS", "items")])
def test_units_and_items_are_limited(limit, match, monkeypatch):
    monkeypatch.setattr(heif_items, limit, 0)
    with pytest.raises(Undecodable, match=match):
        decode(avif(mode="RGBA"), LIMITS)


def test_boxes_are_limited(monkeypatch):
    monkeypatch.setattr(colour_space, "MAX_BOXES", 50)
    data = avif()
    assert decode(data, LIMITS).size == SIZE
    with pytest.raises(Undecodable, match="more than 50 boxes"):
        decode(data + b"\0\0\0\x08free" * 60, LIMITS)


def test_items_that_share_their_data_are_refused(monkeypatch):
    monkeypatch.setattr(heif_items, "_SHARED_BYTES", -len(avif()))
    with pytest.raises(Undecodable, match="share their data"):
        decode(avif(), LIMITS)


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_container_that_is_cut_off_has_no_size(kept):
    for data in (avif(mode="RGBA"), heif_files.GRID):
        coded_pixels(data[: int(len(data) * kept)])
