"""Photographs on which an imported network is run, as the tensors that the worker would make of them."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from worker.contract.errors import StandaloneError
from worker.contract.input_size import InputSize
from worker.contract.settings import LimitSettings
from worker.images.decode import decode
from worker.images.resize import bilinear
from worker.standalone.photographs import copy_photographs

NAMES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
"""Photographs of a subject, one in front of nearly nothing."""

_FEW = 2
_LARGE = 640 * 640
"""Pixels from which a network is run on fewer pictures: IS-Net at 1024 takes seconds for each, twice."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of one size."""

    tensors: npt.NDArray[np.uint8]
    """u8 `[n, H, W, 3]`, red first."""
    source: str
    """What they are, in words."""


def photographs(size: InputSize) -> Pictures:
    """Return the photographs of scikit-image at a size, or generated pictures where it is not installed."""
    count = _FEW if size.pixels > _LARGE else len(NAMES)
    with tempfile.TemporaryDirectory(prefix="maskmill-") as scratch:
        try:
            copy_photographs(Path(scratch))
        except StandaloneError:
            return Pictures(
                _generated(size, count), "generated pictures (pip install 'maskmill[demo]' brings photographs)"
            )
        limits = LimitSettings()
        read = (decode((Path(scratch) / name).read_bytes(), limits) for name in NAMES[:count])
        tensors = [np.array(bilinear(picture.rgb, (size.width, size.height), picture.box)) for picture in read]
    return Pictures(np.stack(tensors), "photographs of scikit-image")


def _generated(size: InputSize, count: int) -> npt.NDArray[np.uint8]:
    """Bright discs of several colours in front of dark gradients, with noise."""
    rng = np.random.default_rng(17)
    y, x = np.mgrid[0 : size.height, 0 : size.width].astype(np.float32)
    made = []
    for _ in range(count):
        centre = rng.uniform(0.3, 0.7, 2) * (size.height, size.width)
        inside = np.hypot(y - centre[0], x - centre[1]) < min(size.height, size.width) * rng.uniform(0.15, 0.3)
        backdrop = (y / size.height)[..., None] * rng.uniform(20, 120, 3)
        picture = np.where(inside[..., None], rng.uniform(120, 250, 3), backdrop) + rng.normal(0, 4, (*y.shape, 3))
        made.append(np.clip(picture, 0, 255).astype(np.uint8))
    return np.stack(made)
