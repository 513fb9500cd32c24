"""Constants of shifted-window attention: position of each token, attention masks and relative position bias.

Source: Liu et al., "Swin Transformer", arXiv 2103.14030, section 3.2. A grid is square, `size x size` tokens in
row-major order, padded at the right and at the bottom to a multiple of the window. All functions use NumPy and depend
only on the grid.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from worker.convert.birefnet.layout import SHIFT, WINDOW
from worker.convert.birefnet.rewrites import Array

Indices = npt.NDArray[np.int32]

MASKED = -1e4
"""Added to the score of a pair of tokens that must not attend to each other. Its `exp` is zero in every precision used.
Unlike minus infinity it has a finite range, which quantisation needs when it collects statistics of the graph."""

AREA = WINDOW * WINDOW
"""Tokens in a window."""


def padded(size: int) -> int:
    """Return the side of the padded grid."""
    return -(-size // WINDOW) * WINDOW


def partition(grid: Indices) -> Indices:
    """Reorder the values of a padded grid `[side, side]` window by window: `[windows, 49]`."""
    count = grid.shape[0] // WINDOW
    tiles = grid.reshape(count, WINDOW, count, WINDOW).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiles.reshape(-1, AREA))


def token_order(size: int, *, shifted: bool) -> Indices:
    """Return the index of the token at each position of each window: `[windows, 49]`; padding is `size * size`."""
    side = padded(size)
    grid = np.full((side, side), size * size, np.int32)
    grid[:size, :size] = np.arange(size * size, dtype=np.int32).reshape(size, size)
    return partition(np.roll(grid, (-SHIFT, -SHIFT), (0, 1)) if shifted else grid)


def window_order(size: int, *, shifted: bool) -> Indices:
    """Return the position of each token among those of all windows: `[size * size]`, the inverse of `token_order`."""
    order = token_order(size, shifted=shifted).ravel()
    places = np.empty(size * size + 1, np.int32)
    places[order] = np.arange(order.size, dtype=np.int32)
    return places[:-1]


def region_masks() -> Array:
    """Return the masks added to the scores of the four kinds of shifted windows, `[4, 1, 49, 49]`.

    The shift brings tokens from opposite borders into one window. A mask is 0 within a region of the image and `MASKED`
    between two regions. Only the last row and the last column of windows hold several regions, so a grid of any size
    has the four kinds of a grid of 2 x 2 windows: inside, last column, last row, corner.
    """
    stripe = np.repeat(np.arange(3), (WINDOW, WINDOW - SHIFT, SHIFT))
    regions = partition((stripe[:, None] * 3 + stripe[None, :]).astype(np.int32))
    apart = regions[:, :, None] != regions[:, None, :]
    return np.where(apart, np.float32(MASKED), np.float32(0))[:, None]


def window_kinds(size: int) -> Indices:
    """Return the index in `region_masks` of each window of a grid: `[windows]`."""
    count = padded(size) // WINDOW
    last = (np.arange(count) == count - 1).astype(np.int32)
    kinds: Indices = (last[:, None] * 2 + last[None, :]).ravel()
    return kinds


def position_index() -> npt.NDArray[np.int64]:
    """Return the row of the bias table for each pair of positions in a window, `[49, 49]`."""
    rows, cols = np.divmod(np.arange(AREA), WINDOW)
    down = rows[:, None] - rows[None, :] + WINDOW - 1
    right = cols[:, None] - cols[None, :] + WINDOW - 1
    index: npt.NDArray[np.int64] = down * (2 * WINDOW - 1) + right
    return index


def position_bias(table: Array) -> Array:
    """Return the relative position bias `[1, heads, 49, 49]` from its table `[169, heads]`."""
    return np.ascontiguousarray(table[position_index()].transpose(2, 0, 1))[None]
