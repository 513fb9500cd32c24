"""Photographs for tests, from the package that the demo uses too, and masks for them."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

FOLDER = Path(importlib.util.find_spec("skimage").submodule_search_locations[0]) / "data"
NAMES = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "retina.jpg", "rocket.jpg")


def photograph(name: str) -> Image.Image:
    """Return a photograph in mode RGB."""
    return Image.open(FOLDER / name).convert("RGB")


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def soft_ellipse(size: int, centre: tuple[float, float], radii: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Return a mask like that of a network: an ellipse with an edge some pixels wide.

    Args:
        size: side of the mask in pixels.
        centre: (x, y) as fractions of the side.
        radii: (x, y) as fractions of the side.

    Returns:
        u8 `[size, size]`.
    """
    y, x = np.mgrid[0:size, 0:size] / size
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    return (255 / (1 + np.exp((distance - 1) * 25))).astype(np.uint8)


CUP = soft_ellipse(320, (0.46, 0.58), (0.36, 0.52))
"""Mask of coffee.png: cup and saucer, cut off by the lower border."""

HEAD = soft_ellipse(320, (0.44, 0.24), (0.16, 0.2))
"""Mask of astronaut.png: the head, with background on all sides."""
