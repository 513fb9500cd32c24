"""Deterministic stand-in weights for BiRefNet-lite, for tests without the checkpoint.

Every array is drawn from a generator seeded by the CRC-32 of its own name, so that neither order nor machine matters.
The values mean nothing; their spreads make every path of the network count (offsets, modulators and batch-norm
statistics are not trivial). The reference arrays in `tests/data/birefnet` were computed by the published definition
from these very values.
"""

from __future__ import annotations

import csv
import math
import zlib
from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data" / "birefnet"

WINDOW = 7


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Every entry of the published state dict, weight or not, with its shape."""
    with (DATA / "state_dict.tsv").open(encoding="utf-8") as table:
        rows = csv.DictReader(table, delimiter="\t")
        return {row["name"]: tuple(int(side) for side in row["shape"].split("x") if side) for row in rows}


def stand_in(name: str, shape: tuple[int, ...], salt: str = "") -> np.ndarray:
    """The value of one entry; another salt gives another set."""
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if leaf == "relative_position_index":
        return _position_index()
    rng = np.random.default_rng(zlib.crc32((salt + name).encode()))
    noise = rng.standard_normal(shape).astype(np.float32)
    if leaf == "running_var":
        return (0.5 + rng.random(shape)).astype(np.float32)
    return _scaled(name, leaf, noise)


def _scaled(name: str, leaf: str, noise: np.ndarray) -> np.ndarray:
    if leaf == "running_mean":
        return 0.1 * noise
    if leaf == "relative_position_bias_table":
        return 0.3 * noise
    if leaf == "bias":
        return (0.7 if "offset_conv" in name else 0.1) * noise
    if noise.ndim == 1:
        return (1 + 0.1 * noise).astype(np.float32)
    gain = 0.3 if "offset_conv" in name or "modulator_conv" in name else 1.4
    return (gain / math.sqrt(np.prod(noise.shape[1:])) * noise).astype(np.float32)


def _position_index() -> np.ndarray:
    rows, cols = np.divmod(np.arange(WINDOW * WINDOW), WINDOW)
    down, right = rows[:, None] - rows, cols[:, None] - cols
    return ((down + WINDOW - 1) * (2 * WINDOW - 1) + right + WINDOW - 1).astype(np.int64)


def stand_in_state_dict(salt: str = "") -> dict[str, np.ndarray]:
    """A whole state dict, 44 million numbers."""
    return {name: stand_in(name, shape, salt) for name, shape in published_shapes().items()}


def stand_in_image(size: int) -> np.ndarray:
    """A smooth, noisy picture, already normalised: `[1, 3, size, size]` float32."""
    rng = np.random.default_rng(zlib.crc32(f"input{size}".encode()))
    coarse = rng.standard_normal((3, 9, 9))
    grid = np.linspace(0, 8, size)
    low = np.floor(grid).astype(int).clip(0, 7)
    part = grid - low
    rows = coarse[:, low] * (1 - part)[None, :, None] + coarse[:, low + 1] * part[None, :, None]
    picture = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    return (picture + 0.2 * rng.standard_normal(picture.shape))[None].astype(np.float32)
