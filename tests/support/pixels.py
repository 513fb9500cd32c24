"""Compare pixels with a reference."""

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
    """Assert that `found` equals Pillow's bilinear resize of `image` to within one level of 255, without bias."""
    reference = np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box))
    assert np.shape(found) == reference.shape
    difference = np.asarray(found).astype(int) - reference
    assert abs(difference).max() <= 1
    assert abs(difference.mean()) <= max(0.02, 2 / np.sqrt(difference.size))
