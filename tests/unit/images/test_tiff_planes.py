"""TIFF in every arrangement of its channels: planes together or apart, 8 or 16 bits, packed or not, either byte order.

The files are written here, so that the true pixels are known; `tifffile` reads them too, as an independent witness.
"""

import io
import itertools
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.support.edge_case_images import encoded
from worker.contract.errors import ImageError, TooLarge, Undecodable, UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images.decode import decode
from worker.images.png_file import DAMAGED_METADATA
from worker.images.tiff_file import read_tags

LIMITS = LimitSettings()
HEIGHT, WIDTH, ROWS = 5, 7, 2  # three strips, the last one shorter
MODES = {  # photometric interpretation, channels, extra samples
    "L": (1, 1, ()),
    "L inverted": (0, 1, ()),
    "LA": (1, 1, (2,)),
    "RGB": (2, 3, ()),
    "RGBA": (2, 3, (2,)),
    "RGB spot": (2, 3, (0, 2)),
    "RGB premultiplied": (2, 3, (1,)),
    "CMYK": (5, 4, ()),
    "LAB": (8, 3, ()),
}
COMPRESSIONS = {"none": 1, "lzw": 5, "deflate": 8, "packbits": 32773}


def stored(samples, bits):
    """Return random values as the file stores them, u8 or u16 [height, width, samples]."""
    values = np.random.default_rng(samples * bits).integers(0, 1 << bits, (HEIGHT, WIDTH, samples), np.uint16)
    return values.astype(np.uint8) if bits == 8 else values


def packed(rows, compression, order):
    """Return the bytes of a strip, u8 or u16 [rows, columns]."""
    raw = rows.astype(rows.dtype.newbyteorder(order)).tobytes()
    if compression == "none":
        return raw
    if compression == "deflate":
        return zlib.compress(raw)
    name = {"lzw": "tiff_lzw", "packbits": "packbits"}[compression]
    line = np.frombuffer(raw, np.uint8).reshape(len(rows), -1)  # LZW and PackBits see bytes, whatever they mean
    image = Image.open(io.BytesIO(encoded(Image.fromarray(line), "TIFF", compression=name, strip_size=1 << 20)))
    (at,), (size,) = image.tag_v2[273], image.tag_v2[279]
    return image.fp.getvalue()[at : at + size]


def tiff(values, mode, *, planar=False, compression="none", order="<", tags=None):
    """Return a TIFF of `values`, u8 or u16 [height, width, samples]."""
    photometric, _, extra = MODES[mode]
    samples = values.shape[2]
    planes = [values[:, :, i] for i in range(samples)] if planar else [values.reshape(HEIGHT, -1)]
    strips = [packed(plane[top : top + ROWS], compression, order) for plane in planes for top in range(0, HEIGHT, ROWS)]
    offsets = list(itertools.accumulate([8, *map(len, strips)]))
    rows = {
        256: ("I", [WIDTH]),
        257: ("I", [HEIGHT]),
        258: ("H", [values.dtype.itemsize * 8] * samples),
        259: ("H", [COMPRESSIONS[compression]]),
        262: ("H", [photometric]),
        273: ("I", offsets[:-1]),
        277: ("H", [samples]),
        278: ("I", [ROWS]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [2 if planar else 1]),
        338: ("H", list(extra)),
    } | (tags or {})
    rows = {tag: row for tag, row in sorted(rows.items()) if row and row[1]}
    at = offsets[-1]
    entries, far = b"", b""
    for tag, (code, numbers) in rows.items():
        body = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(body) > 4:
            body, far = struct.pack(f"{order}I", at + len(far)), far + body
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[code], len(numbers)) + body.ljust(4, b"\0")
    magic = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at + len(far))
    return magic + b"".join(strips) + far + struct.pack(f"{order}H", len(rows)) + entries + bytes(4)


def expected(values, mode):
    """Return RGB and alpha (or None) that the values stand for, by the rules that `decode` documents."""
    photometric, channels, extra = MODES[mode]
    grey, is_word = channels == 1, values.dtype == np.uint16
    high = (values >> 8).astype(np.uint8) if is_word else values
    high = np.floor(values / 257 + 0.5).astype(np.uint8) if is_word and grey else high
    colour = high[:, :, :channels]
    alpha = next((high[:, :, channels + i] for i, kind in enumerate(extra) if kind), None)
    if photometric == 0:
        colour = 255 - colour
    if mode == "CMYK":
        colour = np.asarray(Image.fromarray(np.ascontiguousarray(colour), "CMYK").convert("RGB"))
    elif mode == "RGB premultiplied":
        merged = Image.fromarray(np.ascontiguousarray(np.dstack([colour, alpha])), "RGBa")
        colour = np.asarray(merged.convert("RGBA"))[:, :, :3]
    elif mode == "LAB":
        return None, alpha
    return np.broadcast_to(colour, (HEIGHT, WIDTH, 3)), alpha


def cases():
    for mode, bits, planar in itertools.product(MODES, (8, 16), (False, True)):
        _, channels, extra = MODES[mode]
        samples = channels + len(extra)
        if planar and samples == 1:
            continue
        if not planar and bits == 16 and mode in ("LA", "LAB"):
            continue  # see `test_kinds_that_pillow_does_not_know`
        if not planar and mode == "RGB spot":
            continue  # its second extra sample is the alpha, which Pillow does not look for
        yield mode, bits, planar


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(("mode", "bits", "planar"), list(cases()))
def test_pixels_are_those_of_the_file(mode, bits, planar, compression, order):
    _, channels, extra = MODES[mode]
    values = stored(channels + len(extra), bits)
    data = tiff(values, mode, planar=planar, compression=compression, order=order)
    if compression in ("none", "deflate"):  # what tifffile reads without further libraries
        seen = tifffile.imread(io.BytesIO(data))
        assert np.array_equal(np.moveaxis(seen, 0, -1) if planar else seen.reshape(values.shape), values)

    picture = decode(data, LIMITS)

    rgb, alpha = expected(values, mode)
    if rgb is not None:
        assert np.array_equal(np.asarray(picture.rgb), rgb)
    assert (picture.alpha is None) == (alpha is None)
    if alpha is not None:
        assert np.array_equal(np.asarray(picture.alpha), alpha)


@pytest.mark.parametrize("bits", [8, 16])
def test_lab_planes_have_the_colours_of_lab_pixels_together(bits):
    values = stored(3, 8)
    together = decode(tiff(values, "LAB"), LIMITS)
    apart = decode(tiff(values if bits == 8 else values.astype(np.uint16) << 8, "LAB", planar=True), LIMITS)
    assert np.array_equal(np.asarray(apart.rgb), np.asarray(together.rgb))
    assert np.asarray(apart.rgb).std() > 30


def test_tiles_and_a_predictor_in_planes():
    values = np.random.default_rng(3).integers(0, 1 << 16, (40, 50, 3), np.uint16)
    data = io.BytesIO()
    tifffile.imwrite(
        data, np.moveaxis(values, -1, 0), photometric="rgb", planarconfig="separate", tile=(16, 16), byteorder=">"
    )
    assert np.array_equal(np.asarray(decode(data.getvalue(), LIMITS).rgb), values >> 8)
    differences = np.diff(stored(3, 8), axis=1, prepend=np.zeros((HEIGHT, 1, 3), np.uint8))
    predicted = tiff(differences, "RGB", planar=True, compression="deflate", tags={317: ("H", [2])})
    assert np.array_equal(np.asarray(decode(predicted, LIMITS).rgb), stored(3, 8))


def test_orientation_and_profile_of_planes():
    values = stored(3, 16)
    turned = decode(tiff(values, "RGB", planar=True, tags={274: ("H", [6])}), LIMITS)
    assert np.array_equal(np.asarray(turned.rgb), np.rot90(values >> 8, -1))


@pytest.mark.parametrize(
    ("mode", "words"), [("LA", r"2 x 16 bits, grey, alpha"), ("LAB", r"3 x 16 bits, L\*a\*b\*")], ids=["LA", "LAB"]
)
def test_kinds_that_pillow_does_not_know_are_described(mode, words):
    _, channels, extra = MODES[mode]
    with pytest.raises(UnsupportedFormat, match=words):
        decode(tiff(stored(channels + len(extra), 16), mode), LIMITS)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({339: ("H", [3, 3, 3])}, "float"),
        ({339: ("H", [2, 2, 2])}, "signed"),
        ({262: ("H", [6])}, "YCbCr"),
        ({262: ("H", [99])}, "photometric 99"),
        ({258: ("H", [8, 8, 16])}, "separate planes"),
    ],
)
def test_planes_of_unusual_kinds_are_refused_in_words(tags, words):
    with pytest.raises(UnsupportedFormat, match=words):
        decode(tiff(stored(3, 16), "RGB", planar=True, tags=tags), LIMITS)


def test_planes_that_are_missing_or_cut_off_are_refused():
    data = tiff(stored(3, 16), "RGB", planar=True)
    strips = 3 * 3
    missing = {273: ("I", [8] * (strips - 1)), 279: ("I", [28] * (strips - 1))}
    with pytest.raises(Undecodable, match="lacks some of its planes"):
        decode(tiff(stored(3, 16), "RGB", planar=True, tags=missing), LIMITS)
    beyond = {273: ("I", [len(data)] * strips)}
    with pytest.raises(Undecodable, match="cut off"):
        decode(tiff(stored(3, 16), "RGB", planar=True, tags=beyond), LIMITS)
    overlapping = {279: ("I", [len(data)] * strips)}  # would let a small file be read many times over
    with pytest.raises(Undecodable):
        decode(tiff(stored(3, 16), "RGB", planar=True, tags=overlapping), LIMITS)
    for end in range(0, len(data) - 4, 7):  # the last four bytes say that no page follows
        with pytest.raises(ImageError):
            decode(data[:end], LIMITS)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_that_is_cut_off_is_broken_and_not_unsupported(compression):
    data = encoded(Image.new("RGB", (31, 20), (9, 99, 200)), "TIFF", compression=compression)
    for end in [*range(8, len(data) - 4, 11), *range(len(data) - 20, len(data) - 4)]:
        with pytest.raises(Undecodable):
            decode(data[:end], LIMITS)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("tag", [282, 283, 296, 700])
def test_metadata_of_a_wrong_type_decides_over_no_pixel(tag, planar):
    resolution = {282: ("I", [7]), 283: ("I", [7]), 296: ("H", [3]), 700: ("I", [7])}
    data = bytearray(tiff(stored(3, 8), "RGB", planar=planar, tags={**resolution, 700: None, tag: resolution[tag]}))
    at = next(at for at in range(len(data)) if data[at : at + 2] == struct.pack("<H", tag) and data[at + 4] == 1)
    data[at + 2 : at + 4] = struct.pack("<H", 4 if tag == 700 else 2)
    picture = decode(bytes(data), LIMITS)
    assert np.array_equal(np.asarray(picture.rgb), stored(3, 8))
    assert picture.notes == (DAMAGED_METADATA,)


def test_a_directory_of_many_large_tags_costs_little_memory():
    data = tiff(stored(3, 8), "RGB")
    at = struct.unpack_from("<I", data, 4)[0]
    count = 30_000
    entries = b"".join(struct.pack("<HHII", 1000 + tag, 4, 200_000, 0) for tag in range(count))
    own = data[at + 2 : -4]
    whole = data[:at] + struct.pack("<H", count + len(own) // 12) + own + entries + bytes(4) + bytes(800_000)
    tracemalloc.start()
    try:
        read_tags(whole)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_planes_without_the_sizes_of_their_strips():
    data = tiff(stored(3, 8), "RGB", planar=True, tags={279: None})
    assert np.array_equal(np.asarray(decode(data, LIMITS).rgb), stored(3, 8))


def test_planes_beyond_the_limit():
    with pytest.raises(TooLarge, match="60000 x 60000"):
        decode(tiff(stored(3, 8), "RGB", planar=True, tags={256: ("I", [60_000]), 257: ("I", [60_000])}), LIMITS)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (34712, "JPEG 2000"),
        (50002, "JPEG XL"),
        (34887, "LERC"),
        (34933, "PNG"),
        (34934, "JPEG XR"),
        (50001, "WebP"),
        (777, "number 777"),
    ],
)
def test_a_compression_is_refused_by_name(number, name):
    with pytest.raises(UnsupportedFormat, match=f"compression {name} is not supported"):
        decode(tiff(stored(3, 8), "RGB", tags={259: ("H", [number])}), LIMITS)


def test_big_endian_bigtiff_is_refused_by_name():
    data = io.BytesIO()
    tifffile.imwrite(data, stored(3, 8), photometric="rgb", bigtiff=True, byteorder=">")
    with pytest.raises(UnsupportedFormat, match="big-endian BigTIFF"):
        decode(data.getvalue(), LIMITS)
    data = io.BytesIO()
    tifffile.imwrite(data, np.moveaxis(stored(3, 16), -1, 0), photometric="rgb", bigtiff=True, planarconfig="separate")
    assert np.array_equal(np.asarray(decode(data.getvalue(), LIMITS).rgb), stored(3, 16) >> 8)
