"""JPEG decoding at reduced size: close to decoding at full size on real photographs, at a fraction of the memory."""

import io
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.support.photographs import NAMES, jpeg, photograph
from worker.contract.input_size import InputSize
from worker.contract.settings import LimitSettings
from worker.images import decode as module
from worker.images.decode import FULL_SIZE, OVERSAMPLING, DecodeTarget, decode
from worker.images.tensor import to_tensor

LIMITS = LimitSettings()


@pytest.mark.parametrize(
    ("size", "target", "scale"),
    [
        ((1632, 1224), DecodeTarget(512, 512), 2),
        ((1224, 1632), DecodeTarget(512, 512), 2),
        ((1632, 1224), DecodeTarget(1024, 1024), 1),
        ((1632, 1200), DecodeTarget(512, 512), 1),
        ((6000, 4000), DecodeTarget(1024, 1024), 2),
        ((6000, 5000), DecodeTarget(1024, 1024), 4),
        ((12000, 9000), DecodeTarget(320, 320), 8),
        ((1632, 1224), DecodeTarget(512, 1600), 1),
        ((6000, 4000), DecodeTarget(320, 2000), 2),
        ((12000, 9000), FULL_SIZE, 1),
        ((7, 7), DecodeTarget(1, 1), 4),
    ],
)
def test_scale_leaves_enough_pixels(size, target, scale):
    assert target.scale(*size) == scale


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_the_network_input_is_within_the_stated_error(name, scale):
    """Tested at the smallest size for each scale; the limits are those stated at `OVERSAMPLING`."""
    image = photograph(name)
    data = jpeg(image)
    size = int(min(image.size) / scale / OVERSAMPLING)
    scaled = decode(data, LIMITS, DecodeTarget(size, size))

    assert scaled.rgb.size == tuple(-(-side // scale) for side in image.size)
    assert scaled.size == image.size
    exact = to_tensor(decode(data, LIMITS), InputSize.square(size)).astype(int)
    error = np.abs(to_tensor(scaled, InputSize.square(size)).astype(int) - exact)
    assert error.mean() <= 2.5
    assert np.percentile(error, 99) <= 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_part_of_a_pixel_at_the_border_moves_nothing(orientation):
    """451 / 8 is 56.4 columns; treating them as 57 would stretch the picture by one per cent."""
    image = photograph("chelsea.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, exif=exif.tobytes())
    scaled = decode(buffer.getvalue(), LIMITS, DecodeTarget(24, 24))
    exact = decode(buffer.getvalue(), LIMITS)

    assert scaled.rgb.width < exact.rgb.width / 7
    assert scaled.size == exact.size
    error = np.abs(to_tensor(scaled, InputSize.square(24)).astype(int) - to_tensor(exact, InputSize.square(24)))
    assert error.mean() <= 1.6


def test_other_formats_are_decoded_in_full():
    buffer = io.BytesIO()
    photograph("coffee.png").save(buffer, "PNG")

    picture = decode(buffer.getvalue(), LIMITS, DecodeTarget(32, 32))

    assert picture.rgb.size == picture.size == (600, 400)
    assert picture.box is None


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_are_scaled_too(mode):
    buffer = io.BytesIO()
    photograph("coffee.png").convert(mode).save(buffer, "JPEG")

    picture = decode(buffer.getvalue(), LIMITS, DecodeTarget(100, 100))

    assert (picture.rgb.mode, picture.rgb.size, picture.size) == ("RGB", (300, 200), (600, 400))


def peak_mib(script, data):
    """Return the peak memory of a process above its memory at start, in MiB."""
    root = re.sub(r"/worker/images/decode\.py$", "", module.__file__)
    whole = f"""
import sys
import numpy as np
from worker.contract.input_size import InputSize
from worker.contract.outputs import OutputOptions
from worker.contract.settings import LimitSettings
from worker.images.decode import decode
from worker.images.render import render
from worker.images.subject import decode_target
from worker.images.tensor import to_tensor
from worker.processes.memory import peak_bytes
mask = np.zeros((320, 320), np.uint8)
mask[80:240, 80:240] = 255
def work(data, **options):
    options = OutputOptions(**options)
    picture = decode(data, LimitSettings(), decode_target(options, InputSize.square(320)))
    to_tensor(picture, InputSize.square(320))
    for kind, output in render(picture, mask, options)[1]:
        pass
data = sys.stdin.buffer.read()
small = bytes.fromhex("{jpeg(Image.new("RGB", (64, 64))).hex()}")
work(small, outputs=("mask", "cutout"))
before = peak_bytes()
{script}
print((peak_bytes() - before) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", whole], input=data, capture_output=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr.decode()
    return float(done.stdout)


@pytest.fixture(scope="module")
def large():
    """Return a JPEG of 24 megapixels."""
    return jpeg(photograph("coffee.png").resize((6000, 4000)))


def test_a_mask_of_a_large_jpeg_costs_little_memory(large):
    assert peak_mib('work(data, outputs=("mask",))', large) < 24 * 2 * 1e6 / 2**20


def test_all_outputs_of_a_large_jpeg_cost_what_is_stated(large):
    peak = peak_mib('work(data, outputs=("mask", "cutout", "composite"), refine=True)', large)
    assert peak < 24 * 20 * 1e6 / 2**20
