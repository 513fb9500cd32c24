"""The estimates with which pictures are admitted hold: peak memory is measured in processes of their own."""

from __future__ import annotations

import pytest

from worker.bench.image_memory import measure

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

    assert 0 < row["bytes_per_pixel"] <= row["estimated_bytes_per_pixel"] + FIXED_BYTES / (MEGAPIXELS * 1e6)
