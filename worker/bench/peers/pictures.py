"""The pictures of the contest: different photographs of one size, in a folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from worker.standalone.photographs import copy_photographs

_JPEG_QUALITY = 90
_SEED = 20
_LEAST, _MOST = 0.7, 1.0
"""Range of the sides of a crop, as a share of the photograph's."""
_ASPECT = 4 / 3
_MEGA = 1_000_000


def write(folder: Path, count: int, megapixels: float) -> tuple[list[Path], tuple[int, int]]:
    """Write JPEG files: crops of the demo's photographs, some mirrored, enlarged to one size.

    Args:
        folder: for the files; created.
        count: how many.
        megapixels: size of each, at 4:3.

    Returns:
        The paths, and width and height in pixels.

    Raises:
        StandaloneError: the photographs are not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    originals = copy_photographs(folder.with_name(f"{folder.name}-originals"))
    height = round(math.sqrt(megapixels * _MEGA / _ASPECT))
    size = (round(height * _ASPECT), height)
    random = np.random.default_rng(_SEED)
    paths = []
    for number in range(count):
        with Image.open(originals[number % len(originals)]) as opened:
            picture = opened.convert("RGB")
        width, height = (round(side * random.uniform(_LEAST, _MOST)) for side in picture.size)
        left, top = (
            int(random.integers(0, whole - part + 1)) for whole, part in zip(picture.size, (width, height), strict=True)
        )
        crop = picture.crop((left, top, left + width, top + height))
        if random.random() < 0.5:  # noqa: PLR2004 -- every second one
            crop = ImageOps.mirror(crop)
        path = folder / f"{number:04d}.jpg"
        crop.resize(size, Image.Resampling.LANCZOS).save(path, quality=_JPEG_QUALITY)
        paths.append(path)
    return paths, size
