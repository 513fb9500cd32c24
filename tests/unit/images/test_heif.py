"""HEIC through the extra `heif`: pixels, orientation, limits, and damage that the library does not report."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from support.heif_files import ALPHA, GRID, TURNED
from worker.contract import extras
from worker.contract.errors import ImageError, TooLarge, Undecodable, UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images.decode import decode
from worker.images.heif import check_tiles

LIMITS = LimitSettings()
CORNERS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "yellow": (230, 220, 20)}
needs_extra = pytest.mark.skipif(bool(extras.missing("heif", "")), reason="the extra heif is not installed")


def tiles(data):
    """Return offset and size of the data of the grid's tiles, from its item location box (ISO/IEC 14496-12, 8.11.3)."""
    at = data.index(b"iloc") + 4 + 4 + 2
    (count,) = struct.unpack_from(">H", data, at)
    rows = [struct.unpack_from(">HHHII", data, at + 2 + 14 * index) for index in range(count)]
    return [(offset, size) for item, _, _, offset, size in rows if item != 1]


def corners(picture):
    width, height = picture.width - 4, picture.height - 4
    seen = [np.array(picture.rgb.getpixel(at)) for at in ((4, 4), (width, 4), (4, height), (width, height))]
    return [min(CORNERS, key=lambda name: np.abs(colour - CORNERS[name]).sum()) for colour in seen]


def ftyp(*brands):
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", len(body) + 4) + body + bytes(100)


@pytest.mark.parametrize(
    ("data", "name"), [(GRID, "HEIC"), (ftyp(b"mif1", b"mif1", b"heic"), "HEIC"), (ftyp(b"mif1"), "HEIF")]
)
def test_without_the_extra_the_outcome_names_it(data, name, monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(UnsupportedFormat, match=rf"^{name} is not supported here; .*pip install 'maskmill\[heif\]'"):
        decode(data, LIMITS)


@needs_extra
def test_pixels_of_a_grid():
    picture = decode(GRID, LIMITS)
    assert (picture.size, picture.alpha, picture.notes) == ((120, 110), None, ())
    assert corners(picture) == ["red", "green", "blue", "yellow"]


@needs_extra
def test_its_own_box_turns_a_picture_once():
    picture = decode(TURNED, LIMITS)  # irot 1: a quarter turn counter-clockwise
    assert picture.size == (110, 120)
    assert corners(picture) == ["green", "yellow", "red", "blue"]


@needs_extra
def test_alpha():
    picture = decode(ALPHA, LIMITS)
    assert [picture.alpha.getpixel(at) for at in ((4, 4), (40, 4))] == [0, 255]


@needs_extra
@pytest.mark.parametrize("damage", ["zeros", "missing"])
@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("name", ["GRID", "TURNED"])
def test_a_tile_that_cannot_be_decoded_is_refused(name, index, damage):
    data = bytearray({"GRID": GRID, "TURNED": TURNED}[name])
    offset, size = tiles(data)[index]
    if damage == "zeros":
        data[offset : offset + size] = bytes(size)
    else:
        at = data.index(b"iloc") + 4 + 4 + 2 + 2 + 14 * (index + 1) + 10
        data[at : at + 4] = bytes(4)
    with pytest.raises(Undecodable, match="tile that cannot be decoded"):
        decode(bytes(data), LIMITS)


@pytest.mark.parametrize("green", [77, 84, 89, 94, 135, 136])
@pytest.mark.parametrize("turn", range(4))
def test_the_green_of_missing_data_in_any_matrix(green, turn):
    pixels = np.random.default_rng(green).integers(0, 256, (110, 120, 3), dtype=np.uint8)
    check_tiles(GRID, Image.fromarray(np.rot90(pixels, turn).copy()))
    pixels[64:, :64] = (0, green, 0)
    with pytest.raises(Undecodable):
        check_tiles(GRID, Image.fromarray(np.rot90(pixels, turn).copy()))
    pixels[64, 0] = (0, green, 1)  # not all over the tile
    check_tiles(GRID, Image.fromarray(np.rot90(pixels, turn).copy()))
    check_tiles(ALPHA, Image.new("RGB", (48, 32), (0, green, 0)))  # no grid


@needs_extra
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("data", [GRID, ALPHA], ids=["grid", "alpha"])
def test_truncated_is_refused(data, share):
    with pytest.raises(ImageError):
        decode(data[: int(len(data) * share)], LIMITS)


@needs_extra
def test_the_limits_are_checked_before_any_pixel():
    data = bytearray(GRID)
    at = data.index(struct.pack(">II", 120, 110))
    data[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    with pytest.raises(TooLarge):
        decode(bytes(data), LIMITS)


@needs_extra
@given(
    st.sampled_from([GRID, TURNED, ALPHA]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=5)), min_size=1, max_size=5),
    st.floats(0.2, 3),
)
@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_hostile_bytes_fail_one_image_only(seed, edits, share):
    data = bytearray(seed)
    for place, value in edits:
        at = int(place * len(data))
        data[at : at + len(value)] = value
    with contextlib.suppress(ImageError):
        picture = decode(bytes(data[: int(len(data) * share)]), LimitSettings(max_megapixels=4))
        assert picture.rgb.mode == "RGB"
