"""PNG: metadata never decides over pixels, and a transparent colour is compared at the file's own depth."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support.edge_case_images import encoded, scene
from worker.contract.errors import Undecodable, UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images.colour_space import MAX_PROFILE_BYTES
from worker.images.decode import decode
from worker.images.png_file import DAMAGED_METADATA, MISSING_END, SIGNATURE

LIMITS = LimitSettings()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
BASE = encoded(scene(), "PNG")
AFTER_HEADER = 33
TRUTH = np.asarray(scene())
XMP_6 = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def chunk(kind, body, *, checksum=None):
    right = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", right)


def with_chunk(kind, body, **options):
    return BASE[:AFTER_HEADER] + chunk(kind, body, **options) + BASE[AFTER_HEADER:]


def profile_of(size):
    body = bytearray(SRGB + np.random.default_rng(1).bytes(size - len(SRGB)))
    body[:4] = struct.pack(">I", size)
    return bytes(body)


def itxt(keyword, text):
    return keyword + b"\0\1\0\0\0" + zlib.compress(text)


METADATA = {
    "large profile": (b"iCCP", b"icc\0\0" + zlib.compress(profile_of(2_000_000)), ()),
    "huge profile": (b"iCCP", b"icc\0\0" + zlib.compress(profile_of(MAX_PROFILE_BYTES + 1)), ("larger than 4 MiB",)),
    "broken profile": (b"iCCP", b"icc\0\0rubbish", ("not usable",)),
    "cut profile": (b"iCCP", b"icc\0\0" + zlib.compress(SRGB[:-9]), ("cut off",)),
    "no profile": (b"iCCP", b"icc", ("not usable",)),
    "long iTXt": (b"iTXt", itxt(b"Comment", b"<x/> " * 500_000), ()),
    "long XMP": (b"iTXt", itxt(b"XML:com.adobe.xmp", b"<x/> " * 500_000), ("XMP not readable or larger than 1 MiB",)),
    "broken XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0rubbish", ("XMP not readable",)),
    "long zTXt": (b"zTXt", b"Raw profile type 8bim\0\0" + zlib.compress(b"0011aabb" * 300_000), ()),
    "broken zTXt": (b"zTXt", b"Comment\0\0rubbish", ()),
    "long tEXt": (b"tEXt", b"workflow\0" + b"node " * 500_000, ()),
    "transparency": (b"tEXt", b"transparency\0hello", ()),
    "icc_profile": (b"tEXt", b"icc_profile\0hello", ()),
    "interlace": (b"tEXt", b"interlace\0hello", ()),
    "no keyword": (b"tEXt", b"", ()),
    "tiny gamma": (b"gAMA", bytes(4), ("gamma that cannot be meant",)),
    "short gamma": (b"gAMA", b"\0", ()),
    "short density": (b"pHYs", b"\0", ()),
    "short primaries": (b"cHRM", b"\0", ()),
    "animation": (b"acTL", bytes(3), ()),
    "frame": (b"fcTL", bytes(3), ()),
    "frame data": (b"fdAT", b"", ()),
    "private": (b"prVt", b"anything", ()),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_decides_over_no_pixel(name):
    kind, body, notes = METADATA[name]
    picture = decode(with_chunk(kind, body), LIMITS)
    assert np.array_equal(np.asarray(picture.rgb), TRUTH)
    assert picture.alpha is None
    assert len(picture.notes) == len(notes) and all(note in picture.notes[0] for note in notes)
    large = METADATA["large profile"][1]
    assert (picture.icc_profile or b"") == (profile_of(2_000_000) if body == large else b"")


def test_a_wrong_checksum_in_metadata_is_a_note():
    assert decode(with_chunk(b"tEXt", b"Comment\0hello", checksum=1), LIMITS).notes == (DAMAGED_METADATA,)
    picture = decode(with_chunk(b"iCCP", b"icc\0\0" + zlib.compress(SRGB), checksum=1), LIMITS)
    assert (picture.notes, picture.icc_profile) == ((DAMAGED_METADATA,), None)


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"tRNS", b"PLTE"])
def test_a_wrong_checksum_in_a_chunk_of_pixels_is_refused(kind):
    picture = scene().quantize(8)
    data = bytearray(encoded(picture, "PNG", transparency=bytes(8)))
    data[data.index(kind) + 5] ^= 1
    with pytest.raises(Undecodable, match="checksum"):
        decode(bytes(data), LIMITS)


@pytest.mark.parametrize("removed", range(1, 13))
def test_a_file_without_its_end_chunk_is_read_with_a_note(removed):
    picture = decode(BASE[:-removed], LIMITS)
    assert np.array_equal(np.asarray(picture.rgb), TRUTH)
    assert picture.notes == (MISSING_END,)
    assert decode(BASE + b"junk" * 100, LIMITS).notes == ()


def test_image_data_that_is_cut_off_is_refused():
    for removed in (13, 16, 17, 40):
        with pytest.raises(Undecodable, match="cut off"):
            decode(BASE[:-removed], LIMITS)
    # Cut between two chunks of image data: every chunk is whole, but pixels are missing.
    start, end = BASE.index(b"IDAT") + 4, len(BASE) - 16
    half = BASE[start : (start + end) // 2]
    with pytest.raises(Undecodable):
        decode(BASE[: start - 8] + chunk(b"IDAT", half), LIMITS)
    with pytest.raises(Undecodable, match="no image data"):
        decode(BASE[: start - 8], LIMITS)
    late = BASE[:-12] + chunk(b"tEXt", b"Comment\0hello")[:-6]
    assert decode(late, LIMITS).notes == (MISSING_END,)


def test_private_variants_are_refused_by_name():
    with pytest.raises(UnsupportedFormat, match="CgBI"):
        decode(with_chunk(b"CgBI", bytes(4)), LIMITS)
    with pytest.raises(UnsupportedFormat, match="critical chunk"):
        decode(with_chunk(b"ABCd", bytes(4)), LIMITS)


@pytest.mark.parametrize("kind", [b"iTXt", b"tEXt", b"zTXt"])
def test_the_orientation_of_a_text_still_counts(kind):
    exif = Image.Exif()
    exif[274] = 6
    raw = exif.tobytes()
    profile = b"\nexif\n%8d\n%s\n" % (len(raw), raw.hex().encode())
    body = {
        b"iTXt": itxt(b"XML:com.adobe.xmp", XMP_6),
        b"tEXt": b"Raw profile type exif\0" + profile,
        b"zTXt": b"Raw profile type exif\0\0" + zlib.compress(profile),
    }[kind]
    assert decode(with_chunk(kind, body), LIMITS).size == (120, 160)


# Transparent colours --------------------------------------------------------------------------------------------------


def png(values, depth, colour_type, *extra):
    """Return a PNG of values u16 [height, width, channels]."""
    height, width, _ = values.shape
    if depth == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        shifts = np.arange(depth - 1, -1, -1)
        bits = (values.reshape(height, -1, 1) >> shifts & 1).reshape(height, -1).astype(np.uint8)
        rows = [row.tobytes() for row in np.packbits(bits, axis=1)]
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", head), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return SIGNATURE + b"".join(chunk(*parts) for parts in chunks)


@pytest.mark.parametrize("beyond", [0, 0xFF00], ids=["plain key", "bits beyond the depth"])
@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("colour_type", [0, 2])
def test_only_the_transparent_colour_is_transparent(depth, colour_type, beyond):
    if colour_type == 2 and depth < 8:
        return  # no such PNG
    channels, most = 1 if colour_type == 0 else 3, (1 << depth) - 1
    rng = np.random.default_rng(depth)
    values = rng.integers(0, most + 1, (9, 11, channels), dtype=np.uint16)
    for key_at in ((0, 0), (4, 5), (8, 10)):
        key = values[key_at]
        near = key.copy()
        near[-1] ^= 1  # differs in the last bit alone
        values[2, 3] = near
        stored = key | (0 if depth == 16 else beyond & ~most & 0xFFFF)
        data = png(values, depth, colour_type, (b"tRNS", struct.pack(f">{channels}H", *map(int, stored))))
        visible = np.asarray(decode(data, LIMITS).alpha)
        assert np.array_equal(visible == 0, (values == key).all(axis=2))
        assert set(np.unique(visible)) == {0, 255}


def test_a_transparent_colour_of_an_interlaced_picture_with_16_bits():
    # Adam7 of 1 x 1 pixels is one pass of one pixel: the same bytes, but another path through the decoder.
    values = np.array([[[0x1234, 0x5678, 0x9ABC]]], np.uint16)
    for key, alpha in (((0x1234, 0x5678, 0x9ABC), 0), ((0x1234, 0x5678, 0x9ABD), None)):
        data = bytearray(png(values, 16, 2, (b"tRNS", struct.pack(">3H", *key))))
        data[28] = 1
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
        seen = decode(bytes(data), LIMITS).alpha
        assert (None if seen is None else seen.getpixel((0, 0))) == alpha


def test_a_transparent_colour_turns_with_the_picture():
    exif = Image.Exif()
    exif[274] = 6
    values = np.zeros((2, 3, 1), np.uint16)
    values[0, 0] = 3
    eXIf = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    picture = decode(png(values, 2, 0, (b"tRNS", struct.pack(">H", 3)), eXIf), LIMITS)
    assert np.asarray(picture.alpha).tolist() == [[255, 0], [255, 255], [255, 255]]


def test_a_transparent_colour_that_is_incomplete_is_refused():
    with pytest.raises(Undecodable, match="transparent colour"):
        decode(png(np.zeros((2, 2, 3), np.uint16), 8, 2, (b"tRNS", b"\0\0")), LIMITS)
