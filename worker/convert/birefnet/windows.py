"""Constants of shifted-window attention: position of each token, attention masks and relative position bias.

Source: Liu et al., "Swin Transformer", arXiv 2103.14030, section 3.2. All functions use NumPy and depend only on the
grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.convert.birefnet.rewrites import Array

Indices = npt.NDArray[np.int32]

MASKED = -1e4
"""Added to the score of a pair of tokens that must not attend to each other. Its `exp` is zero in every precision used.
Unlike minus infinity it has a finite range, which quantisation needs when it collects statistics of the graph."""


@dataclass(frozen=True)
class Grid:
    """A grid of tokens in row-major order. It is padded at the bottom and at the right to multiples of the window.

    A grid that fits into one window is shifted and masked like any other.
    """

    height: int
    width: int
    window: int
    """Side of a window, in tokens."""

    @property
    def tokens(self) -> int:
        """Tokens of the grid, without padding."""
        return self.height * self.width

    @property
    def shift(self) -> int:
        """Tokens by which a shifted grid is rolled up and to the left."""
        return self.window // 2

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the padded grid."""
        return -(-self.height // self.window) * self.window, -(-self.width // self.window) * self.window

    @property
    def windows(self) -> tuple[int, int]:
        """Windows along the height and along the width."""
        height, width = self.padded
        return height // self.window, width // self.window

    @property
    def halved(self) -> Grid:
        """The grid of the next stage; an odd side is rounded up."""
        return Grid((self.height + 1) // 2, (self.width + 1) // 2, self.window)

    def token_order(self, *, shifted: bool) -> Indices:
        """Return the index of the token at each position of each window: `[windows, area]`; padding is `tokens`."""
        grid = np.full(self.padded, self.tokens, np.int32)
        numbers = np.arange(self.tokens, dtype=np.int32)
        grid[: self.height, : self.width] = numbers.reshape(self.height, self.width)
        rolled = np.roll(grid, (-self.shift, -self.shift), (0, 1)) if shifted else grid
        return partition(rolled, self.window)

    def window_order(self, *, shifted: bool) -> Indices:
        """Return the position of each token among those of all windows: `[tokens]`, the inverse of `token_order`."""
        order = self.token_order(shifted=shifted).ravel()
        places = np.empty(self.tokens + 1, np.int32)
        places[order] = np.arange(order.size, dtype=np.int32)
        return places[:-1]

    def window_kinds(self) -> Indices:
        """Return the index in `region_masks` of each window: `[windows]`."""
        rows, columns = ((np.arange(count) == count - 1).astype(np.int32) for count in self.windows)
        kinds: Indices = (rows[:, None] * 2 + columns[None, :]).ravel()
        return kinds


def partition(grid: Indices, window: int) -> Indices:
    """Reorder the values of a padded grid `[height, width]` window by window: `[windows, area]`."""
    rows, columns = grid.shape[0] // window, grid.shape[1] // window
    tiles = grid.reshape(rows, window, columns, window).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(tiles.reshape(-1, window * window))


def region_masks(window: int) -> Array:
    """Return the masks added to the scores of the four kinds of shifted windows, `[4, 1, area, area]`.

    The shift brings tokens from opposite borders into one window. A mask is 0 within a region of the image and `MASKED`
    between two regions. Only the last row and the last column of windows hold several regions, so a grid of any size
    has the four kinds of a grid of 2 x 2 windows: inside, last column, last row, corner.
    """
    shift = window // 2
    stripe = np.repeat(np.arange(3), (window, window - shift, shift))
    regions = partition((stripe[:, None] * 3 + stripe[None, :]).astype(np.int32), window)
    apart = regions[:, :, None] != regions[:, None, :]
    return np.where(apart, np.float32(MASKED), np.float32(0))[:, None]


def position_index(window: int) -> npt.NDArray[np.int64]:
    """Return the row of the bias table for each pair of positions in a window, `[area, area]`."""
    rows, cols = np.divmod(np.arange(window * window), window)
    down = rows[:, None] - rows[None, :] + window - 1
    right = cols[:, None] - cols[None, :] + window - 1
    index: npt.NDArray[np.int64] = down * (2 * window - 1) + right
    return index


def position_bias(table: Array, window: int) -> Array:
    """Return the relative position bias `[1, heads, area, area]` from its table `[(2 * window - 1)^2, heads]`."""
    return np.ascontiguousarray(table[position_index(window)].transpose(2, 0, 1))[None]
