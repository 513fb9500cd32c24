"""Prepare pictures in NumPy as a network takes them, with the network's own normalisation.

The engine does the same inside its graph; see `worker.model.inference.graph`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from worker.model.inference.facts import InputScaling, NetworkFacts
from worker.model.inference.graph import IMAGENET_MEAN, IMAGENET_SCALE

_TINY = 1e-6
"""Least divisor: of a black picture."""


def network_input(pixels: npt.NDArray[np.uint8], facts: NetworkFacts) -> npt.NDArray[np.float32]:
    """Return pictures as the network takes them.

    Args:
        pixels: u8 `[n, H, W, 3]`, red first.
        facts: of the network; where they give no mean and scale, those of ImageNet count, as in the engine.

    Returns:
        f32 `[n, 3, H, W]`, contiguous.
    """
    mean, scale = facts.mean or IMAGENET_MEAN, facts.scale or IMAGENET_SCALE
    values: npt.NDArray[Any] = (pixels[..., ::-1] if facts.reverse_input_channels else pixels).astype(np.float32)
    if facts.input_scaling is InputScaling.PICTURE_MAXIMUM:
        largest = values.max(axis=(1, 2, 3), keepdims=True)
        values = values * (np.float32(255) / np.maximum(largest, np.float32(_TINY)))
    values = (values - np.array(mean, np.float32)) / np.array(scale, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
