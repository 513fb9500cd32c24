"""Decoding to upright 8-bit RGB, with real pixels of every mode and format."""

import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from tests.support.edge_case_images import BACKGROUND, encoded, scene
from worker.contract.errors import UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images.decode import decode

LIMITS = LimitSettings()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CORNERS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "yellow": (230, 220, 20)}


def pixels(data):
    return np.asarray(decode(data, LIMITS).rgb)


def quadrants(size=(48, 32)):
    """Return a picture of four quadrants: red, green / blue, yellow, row by row."""
    width, height = size
    picture = Image.new("RGB", size)
    for index, colour in enumerate(CORNERS.values()):
        picture.paste(colour, (width // 2 * (index % 2), height // 2 * (index // 2), width, height))
    return picture


def corners(picture):
    """Return the names of the four corner colours of a picture, row by row."""
    width, height = picture.width - 4, picture.height - 4
    names = []
    for x, y in ((4, 4), (width, 4), (4, height), (width, height)):
        seen = np.array(picture.rgb.getpixel((x, y)))
        names.append(min(CORNERS, key=lambda name: np.abs(seen - CORNERS[name]).sum()))
    return names


def oriented(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif.tobytes()


# Orientation ----------------------------------------------------------------------------------------------------------

UPRIGHT = {  # orientation -> corner colours as displayed; comment: where the tag places row 0 and column 0
    1: ["red", "green", "blue", "yellow"],  # top, left
    2: ["green", "red", "yellow", "blue"],  # top, right
    3: ["yellow", "blue", "green", "red"],  # bottom, right
    4: ["blue", "yellow", "red", "green"],  # bottom, left
    5: ["red", "blue", "green", "yellow"],  # left, top
    6: ["blue", "red", "yellow", "green"],  # right, top
    7: ["yellow", "green", "blue", "red"],  # right, bottom
    8: ["green", "yellow", "red", "blue"],  # left, bottom
}


@pytest.mark.parametrize("value", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_orientation_is_applied(kind, value):
    options = {"max_threads": 1} if kind == "AVIF" else {}
    picture = decode(encoded(quadrants(), kind, exif=oriented(value), **options), LIMITS)
    assert corners(picture) == UPRIGHT[value]
    assert (picture.width, picture.height) == ((48, 32) if value < 5 else (32, 48))


@pytest.mark.parametrize("value", [0, 9, 700])
def test_orientation_out_of_range_is_upright(value):
    assert corners(decode(encoded(quadrants(), "JPEG", exif=oriented(value)), LIMITS)) == UPRIGHT[1]


def test_broken_exif_is_upright_with_a_note():
    picture = decode(encoded(quadrants(), "PNG", exif=b"rubbish, not EXIF"), LIMITS)
    assert corners(picture) == UPRIGHT[1]
    assert picture.notes == ("EXIF not readable: orientation assumed upright",)


def test_orientation_is_applied_to_alpha():
    alpha = Image.new("L", (48, 32), 255)
    alpha.paste(0, (0, 0, 24, 16))  # red, top left
    whole = quadrants()
    whole.putalpha(alpha)
    picture = decode(encoded(whole, "PNG", exif=oriented(6)), LIMITS)
    assert picture.alpha.size == (32, 48)
    assert (picture.alpha.getpixel((28, 4)), picture.alpha.getpixel((4, 4))) == (0, 255)  # red is now top right


# Modes ----------------------------------------------------------------------------------------------------------------


def test_rgb_png_is_exact():
    assert np.array_equal(pixels(encoded(quadrants(), "PNG")), np.asarray(quadrants()))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind):
    values = np.array([[0, 128, 129, 257, 1000, 32768, 65407, 65535]], np.uint16)
    grey = pixels(encoded(Image.fromarray(values), kind))[0, :, 0]
    assert grey.tolist() == np.floor(values[0] / 257 + 0.5).astype(int).tolist() == [0, 0, 1, 1, 4, 128, 255, 255]


def test_16_bit_big_endian_tiff_is_scaled():
    values = np.array([[0, 257, 32768, 65535]], ">u2")
    assert pixels(encoded(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_16_bit_white_is_zero_is_inverted():
    data = encoded(Image.fromarray(np.array([[0, 65535]], np.uint16)), "TIFF", tiffinfo={262: 0})
    assert pixels(data)[0, :, 0].tolist() == [255, 0]


def test_12_bit_tiff_uses_the_whole_range():
    # 4095, 0, 2048, 0 in 12 bits each, packed high nibble first; the tags are those of TIFF 6.0, section 4.
    strip = bytes((0xFF, 0xF0, 0x00, 0x80, 0x00, 0x00))
    tags = ((256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(strip)))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<I", 16) + strip + b"\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert pixels(data)[0, :, 0].tolist() == [255, 0, 128, 0]


def test_16_bit_rgb_png_arrives_as_high_bytes():
    values = np.array([[[0x1234, 0x00FF, 0xFFFF], [0x8000, 0x0100, 0x7F80]]], ">u2")
    rows = b"\0" + values.tobytes()
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    assert pixels(data)[0].tolist() == [[0x12, 0x00, 0xFF], [0x80, 0x01, 0x7F]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_grey_is_refused(mode):
    with pytest.raises(UnsupportedFormat, match="no agreed white"):
        decode(encoded(Image.new(mode, (4, 4)), "TIFF"), LIMITS)


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr"])
def test_opaque_modes_keep_the_contrast(mode):
    data = encoded(scene().convert(mode), "TIFF", compression="tiff_lzw")
    picture = decode(data, LIMITS)
    assert picture.rgb.mode == "RGB"
    assert picture.alpha is None
    seen = np.asarray(picture.rgb).astype(int)
    assert seen[5, 5].mean() - seen[60, 90].mean() > 40


def test_palette_colours_are_those_of_the_palette():
    data = encoded(quadrants().quantize(4), "PNG")
    assert corners(decode(data, LIMITS)) == UPRIGHT[1]


def test_lab_tiff_becomes_srgb():
    data = encoded(quadrants().convert("LAB"), "TIFF")
    assert np.abs(pixels(data).astype(int) - np.asarray(quadrants())).max() < 12


# Alpha ----------------------------------------------------------------------------------------------------------------


def transparent_left(mode):
    """Return the quadrants with alpha 100 at top left, 0 at bottom left and 255 on the right."""
    whole = quadrants().convert("RGBA")
    alpha = Image.new("L", whole.size, 255)
    alpha.paste(0, (0, 0, 24, 32))
    alpha.paste(100, (0, 0, 24, 16))
    whole.putalpha(alpha)
    return whole.convert(mode)


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("TIFF", "RGBA")])
def test_alpha_is_kept_apart_and_colour_is_straight(kind, mode):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    picture = decode(encoded(transparent_left(mode), kind, **options), LIMITS)
    assert [picture.alpha.getpixel(p) for p in ((4, 4), (4, 28), (44, 4))] == [100, 0, 255]
    straight = quadrants().convert("L").convert("RGB") if mode == "LA" else quadrants()
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(straight))


def test_opaque_alpha_is_dropped():
    assert decode(encoded(scene().convert("RGBA"), "PNG"), LIMITS).alpha is None


@pytest.mark.parametrize("how", ["index", "table"])
def test_transparent_palette(how):
    picture = quadrants().quantize(4)
    index = picture.getpixel((4, 4))
    table = bytes(77 if i == index else 255 for i in range(4))
    seen = decode(encoded(picture, "PNG", transparency=index if how == "index" else table), LIMITS)
    assert seen.alpha.getpixel((4, 4)) == (0 if how == "index" else 77)
    assert seen.alpha.getpixel((44, 28)) == 255
    assert corners(seen) == UPRIGHT[1]


@pytest.mark.parametrize(
    ("picture", "key"),
    [
        (quadrants(), CORNERS["red"]),
        (Image.fromarray(np.array([[7, 9]], np.uint8)), 7),
        (Image.fromarray(np.array([[700, 90]], np.uint16)), 700),
        (Image.fromarray(np.array([[False, True]])), 0),
    ],
    ids=["RGB", "L", "I;16", "1"],
)
def test_one_transparent_colour(picture, key):
    seen = decode(encoded(picture, "PNG", transparency=key), LIMITS)
    assert seen.alpha.getpixel((0, 0)) == 0
    assert seen.alpha.getpixel((picture.width - 1, 0)) == 255


# CMYK and profiles ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_without_a_profile_is_converted_plainly_with_a_note(kind):
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    picture = decode(encoded(quadrants().convert("CMYK"), kind, **options), LIMITS)
    assert corners(picture) == UPRIGHT[1]
    assert picture.notes == ("CMYK without an ICC profile: plain conversion",)


def profile_like(space):
    """Return an ICC profile with a valid header for a colour space, but contents that do not fit it."""
    return SRGB[:16] + space + SRGB[20:]


def test_broken_cmyk_profile_falls_back_with_a_note():
    data = encoded(quadrants().convert("CMYK"), "JPEG", quality=95, icc_profile=profile_like(b"CMYK"))
    picture = decode(data, LIMITS)
    assert corners(picture) == UPRIGHT[1]
    assert picture.icc_profile is None
    assert picture.notes == ("ICC profile not usable: plain conversion",)


def grey_profile(gamma):
    """Return a valid grey ICC profile with one gamma: header, white point and curve (ICC.1, 8.3.4 and 10.6)."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    table = struct.pack(">I", 2) + b"wtpt" + struct.pack(">II", 156, 20) + b"kTRC" + struct.pack(">II", 176, 16)
    head = bytearray(SRGB[:128])
    head[8:12], head[16:20], head[20:24] = b"\x02\x10\0\0", b"GRAY", b"XYZ "
    head[0:4] = struct.pack(">I", 128 + len(table + white + curve))
    return bytes(head) + table + white + curve


def test_grey_profile_is_applied_and_not_kept():
    grey = Image.new("L", (8, 8), 128)
    linear, steep = (decode(encoded(grey, "PNG", icc_profile=grey_profile(g)), LIMITS) for g in (1.0, 2.2))
    # 128 of 255 in linear light is 188 in sRGB (IEC 61966-2-1); gamma 2.2 is nearly sRGB itself.
    assert linear.rgb.getpixel((0, 0))[0] == pytest.approx(188, abs=2)
    assert steep.rgb.getpixel((0, 0))[0] == pytest.approx(128, abs=3)
    assert linear.icc_profile is steep.icc_profile is None
    assert linear.notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_rgb_profile_is_kept(kind):
    options = {"max_threads": 1} if kind == "AVIF" else {}
    assert decode(encoded(scene(), kind, icc_profile=SRGB, **options), LIMITS).icc_profile == SRGB


def test_rgb_profile_fits_grey_pixels_too():
    assert decode(encoded(scene().convert("L"), "PNG", icc_profile=SRGB), LIMITS).icc_profile == SRGB


@pytest.mark.parametrize(
    "profile", [profile_like(b"CMYK"), b"no profile at all", SRGB[:100]], ids=["CMYK", "none", "cut"]
)
def test_profile_that_does_not_fit_rgb_is_dropped(profile):
    picture = decode(encoded(scene(), "PNG", icc_profile=profile), LIMITS)
    assert picture.icc_profile is None
    assert np.array_equal(np.asarray(picture.rgb), np.asarray(scene()))


def test_rgb_profile_on_cmyk_is_dropped():
    assert decode(encoded(scene().convert("CMYK"), "TIFF", icc_profile=SRGB), LIMITS).icc_profile is None


def test_no_metadata_stays_on_the_image():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "maker"
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (50.0, 1.0, 2.0)}
    picture = decode(encoded(transparent_left("RGBA"), "PNG", exif=exif.tobytes()), LIMITS)
    assert picture.rgb.info == picture.alpha.info == {}


# Frames ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "TIFF", "MPO"])
def test_first_frame_of_many(kind):
    options = {"max_threads": 1} if kind == "AVIF" else {}
    others = [quadrants().transpose(Image.Transpose.ROTATE_180)] * 2
    data = encoded(quadrants(), kind, save_all=True, append_images=others, **options)
    assert corners(decode(data, LIMITS)) == UPRIGHT[1]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmp(mode):
    picture = decode(encoded(quadrants().convert(mode), "BMP"), LIMITS)
    assert (picture.width, picture.height) == (48, 32)


def test_bmp_of_16_bits_with_transparency_is_refused():
    """Pillow would drop the transparency."""
    masks = struct.pack("<4I", 0x7C00, 0x03E0, 0x001F, 0x8000)
    header = struct.pack("<IiiHHIIiiII", 56, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0) + masks
    data = b"BM" + struct.pack("<IHHI", 74, 0, 0, 70) + header + struct.pack("<HH", 0x7FFF, 0xFFFF)

    with pytest.raises(UnsupportedFormat, match="BMP of 16 bits with transparency"):
        decode(data, LIMITS)
    opaque = data[:66] + bytes(4) + data[70:]
    assert decode(opaque, LIMITS).rgb.getpixel((0, 0)) == (255, 255, 255)


def test_background_of_the_scene_survives_jpeg():
    assert np.abs(pixels(encoded(scene(), "JPEG", quality=95))[3, 3].astype(int) - BACKGROUND).max() < 4


# Screens, boxes and cut profiles -------------------------------------------------------------------------------------


def gif_of_a_part(**options):
    """Return a GIF whose screen has 48 x 32 pixels and whose only frame covers 8 x 6 of them, from (10, 12)."""
    data = bytearray(encoded(Image.new("L", (8, 6), 200), "GIF", **options))
    data[6:10] = struct.pack("<HH", 48, 32)
    frame = data.index(b"," + struct.pack("<HHHH", 0, 0, 8, 6))
    data[frame + 1 : frame + 5] = struct.pack("<HH", 10, 12)
    return bytes(data)


def test_the_rest_of_a_gif_screen_is_transparent():
    picture = decode(gif_of_a_part(), LIMITS)
    assert picture.size == (48, 32)
    visible = np.zeros((32, 48), np.uint8)
    visible[12:18, 10:18] = 255
    assert np.array_equal(np.asarray(picture.alpha), visible)
    assert picture.rgb.getpixel((12, 14)) == (200, 200, 200)
    assert decode(encoded(scene(), "GIF"), LIMITS).alpha is None


def test_transparent_pixels_of_a_gif_frame_stay_transparent():
    alpha = np.asarray(decode(gif_of_a_part(transparency=0), LIMITS).alpha)
    assert (alpha == 0).all() or alpha[14, 12] == 255
    assert alpha[0, 0] == 0


def test_only_the_boxes_of_an_avif_turn_it():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    picture = decode(encoded(quadrants(), "AVIF", max_threads=1, xmp=xmp), LIMITS)
    assert (picture.size, corners(picture)) == ((48, 32), UPRIGHT[1])
    assert decode(encoded(quadrants(), "AVIF", max_threads=1, xmp=xmp, exif=oriented(6)), LIMITS).size == (32, 48)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("length", [200, -1])
def test_a_profile_that_is_cut_off_is_dropped_with_a_note(kind, length):
    picture = decode(encoded(scene(), kind, icc_profile=SRGB[:length]), LIMITS)
    assert picture.icc_profile is None
    assert picture.notes == ("ICC profile cut off: dropped",)


def test_a_profile_beyond_the_limit_is_dropped_with_a_note():
    size = (4 << 20) + 1
    large = struct.pack(">I", size) + SRGB[4:] + bytes(size - len(SRGB))
    picture = decode(encoded(scene(), "TIFF", icc_profile=large), LIMITS)
    assert (picture.icc_profile, picture.notes) == (None, ("ICC profile larger than 4 MiB: dropped",))
