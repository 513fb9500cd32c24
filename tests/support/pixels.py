"""Pixels compared with those of a reference."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image


def assert_resized(
    found: Image.Image | npt.NDArray[np.uint8],
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
) -> None:
    """That this is what Pillow's bilinear resize makes of an image, to a level of 255 and without leaning to a side."""
    reference = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
    assert np.shape(found) == reference.shape
    difference = np.asarray(found).astype(int) - reference
    assert abs(difference).max() <= 1
    assert abs(difference.mean()) <= max(0.02, 2 / np.sqrt(difference.size))
