"""The resize of network inputs and outputs, compared with Pillow's."""

import numpy as np
import pytest
from cykooz_resizer import CpuExtensions, Resizer
from PIL import Image

from tests.support.pixels import assert_resized
from worker.images import resize as module
from worker.images.resize import bilinear

SIZES = [(1, 1), (7, 300), (300, 7), (816, 612), (1632, 1224)]


def noise(mode, size):
    shape = (size[1], size[0], 3)[: 3 if mode == "RGB" else 2]
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(1, 1), (320, 320), (511, 640)])
def test_it_is_pillows_bilinear(mode, size, target):
    image = noise(mode, size)

    found = bilinear(image, target)

    assert (found.mode, found.size) == (mode, target)
    assert_resized(found, image, target)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "box", [(0, 0, 200, 150), (0.0, 0.0, 199.5, 149.25), (3.3, 7.9, 101.1, 140.0), (199.75, 20.0, 200.0, 20.5)]
)
@pytest.mark.parametrize("target", [(64, 64), (500, 333)])
def test_a_part_is_cut_to_parts_of_a_pixel(mode, box, target):
    image = noise(mode, (200, 150))

    assert_resized(bilinear(image, target, box), image, target, box)


def test_a_part_may_reach_the_edge_despite_rounding():
    random = np.random.default_rng(5)
    image = noise("L", (509, 487))
    for left, top in random.uniform(0, 480, (500, 2)):
        bilinear(image, (3, 3), (float(left), float(top), 509.0, 487.0))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [(64, 64), (1023, 770)])
def test_a_constant_grey_is_unchanged(mode, size, target):
    """Opaque stays opaque and transparent stays transparent."""
    for level in (0, 1, 127, 128, 254, 255):
        image = Image.new(mode, size, (level,) * 3 if mode == "RGB" else level)
        assert set(np.asarray(bilinear(image, target)).reshape(-1).tolist()) == {level}


@pytest.mark.parametrize("extensions", [CpuExtensions.none, CpuExtensions.sse4_1, CpuExtensions.avx2])
@pytest.mark.parametrize("size", [(512, 512), (101, 77), (5, 3), (1, 1), (300, 6)])
@pytest.mark.parametrize("part", [(0.0, 1.0), (0.013, 0.77)])
def test_masks_resized_in_fours_are_those_resized_row_by_row(size, part, extensions, monkeypatch):
    """Whatever code the library has for the processor."""

    class Fixed(Resizer):
        def __init__(self):
            super().__init__()
            self.cpu_extensions = extensions

    monkeypatch.setattr(module, "Resizer", Fixed)
    image, width = noise("L", size), 3 * size[0] + 1
    left, right = part[0] * size[0], part[1] * size[0]

    assert module._across_in_fours(image, width, left, right) == module._across(image, width, left, right)


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "I;16", "LA"])
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match=f"not {mode}; convert"):
        bilinear(Image.new(mode, (4, 4)), (2, 2))
