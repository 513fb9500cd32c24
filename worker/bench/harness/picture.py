"""The picture that every measurement of a network uses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from worker.contract.input_size import InputSize


def picture(size: InputSize) -> npt.NDArray[np.uint8]:
    """Return a smooth picture with some grain, u8 `[1, height, width, 3]`, the same on every machine."""
    shape = size.height, size.width
    rng = np.random.default_rng(size.height if size.is_square else shape)
    rows, columns = (np.linspace(0, 2 * np.pi, side, endpoint=False) for side in shape)
    waves = np.zeros((*shape, 3))
    for _ in range(6):
        across, down = rng.integers(1, 6, 2)
        wave = np.sin(across * columns[None, :] + down * rows[:, None] + rng.uniform(0, 2 * np.pi))
        waves += wave[:, :, None] * rng.uniform(-1, 1, 3)
    grain = rng.standard_normal((*shape, 3))
    levels: npt.NDArray[np.uint8] = np.clip(128 + 35 * waves + 6 * grain, 0, 255).astype(np.uint8)[None]
    return levels
