"""The picture that every measurement of a network uses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def picture(size: int) -> npt.NDArray[np.uint8]:
    """Return a smooth picture with some grain, u8 `[1, size, size, 3]`, the same on every machine."""
    rng = np.random.default_rng(size)
    grid = np.linspace(0, 2 * np.pi, size, endpoint=False)
    waves = np.zeros((size, size, 3))
    for _ in range(6):
        across, down = rng.integers(1, 6, 2)
        wave = np.sin(across * grid[None, :] + down * grid[:, None] + rng.uniform(0, 2 * np.pi))
        waves += wave[:, :, None] * rng.uniform(-1, 1, 3)
    grain = rng.standard_normal((size, size, 3))
    levels: npt.NDArray[np.uint8] = np.clip(128 + 35 * waves + 6 * grain, 0, 255).astype(np.uint8)[None]
    return levels
