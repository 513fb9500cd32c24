"""The estimates with which pictures are admitted hold: peak memory is measured in processes of their own."""

from __future__ import annotations

import pytest

from support.heif_files import DEEP, DEEP_SMALL
from worker.bench.image_memory import INPUTS, measure
from worker.contract import extras

needs_extra = pytest.mark.skipif(bool(extras.missing("heif", "")), reason="the extra heif is not installed")

MEGAPIXELS = 3.0
FIXED_BYTES = 8e6
"""What does not depend on the pixels: buffers of the codecs and of the allocator."""


@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("JPEG CMYK", ""),
        ("JPEG progressive 4:4:4", ""),
        ("JPEG without its end", ""),
        ("PNG RGBA", ""),
        ("PNG transparent colour", ""),
        ("WebP RGBA", ""),
        ("AVIF RGBA", ""),
        ("TIFF RGBA", ""),
        ("JPEG", "mask"),
        ("JPEG", "cutout"),
        ("JPEG", "cutout WebP"),
        ("PNG RGBA", "cutout refine"),
        ("PNG RGBA", "cutout AVIF"),
        ("PNG RGBA", "mask WebP"),
    ],
)
def test_a_picture_takes_no_more_memory_than_estimated(name, output, tmp_path):
    row = measure(name, output, MEGAPIXELS, tmp_path)

    assert_holds(row)


@needs_extra
def test_a_heic_takes_no_more_memory_than_estimated(tmp_path, monkeypatch):
    """Its decoder holds 10 bits per channel in 16, and a matte in a plane of its own."""
    monkeypatch.setitem(INPUTS, "HEIC", lambda image: DEEP if image.width > 1000 else DEEP_SMALL)

    assert_holds(measure("HEIC", "", MEGAPIXELS, tmp_path))


def assert_holds(row) -> None:
    assert 0 < row["bytes_per_pixel"] <= row["estimated_bytes_per_pixel"] + FIXED_BYTES / (MEGAPIXELS * 1e6)
