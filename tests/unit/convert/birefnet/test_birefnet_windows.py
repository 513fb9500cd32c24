"""Constants of shifted-window attention, compared with the plain pad, roll and cut that they replace."""

from __future__ import annotations

import numpy as np
import pytest

from support.birefnet_weights import stand_in
from worker.convert.birefnet import windows
from worker.convert.birefnet.windows import Grid

SQUARES = [Grid(side, side, 7) for side in (1, 2, 6, 7, 8, 14, 20)]
OTHERS = [Grid(3, 5, 7), Grid(15, 7, 7), Grid(12, 12, 12), Grid(8, 25, 12), Grid(13, 1, 12)]
GRIDS = [*SQUARES, *OTHERS]


def published_cut(values: np.ndarray, grid: Grid, *, shifted: bool) -> np.ndarray:
    window = grid.window
    height, width = values.shape
    values = np.pad(values, ((0, -height % window), (0, -width % window)), constant_values=values.size)
    if shifted:
        values = np.roll(values, (-(window // 2), -(window // 2)), (0, 1))
    return np.array(
        [
            values[row : row + window, col : col + window].ravel()
            for row in range(0, len(values), window)
            for col in range(0, values.shape[1], window)
        ]
    )


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_tokens_have_the_positions_of_pad_roll_and_cut(grid, shifted):
    values = np.arange(grid.tokens).reshape(grid.height, grid.width)

    assert np.array_equal(grid.token_order(shifted=shifted), published_cut(values, grid, shifted=shifted))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_inverse_order_finds_every_token(grid, shifted):
    order = grid.token_order(shifted=shifted).ravel()

    assert np.array_equal(order[grid.window_order(shifted=shifted)], np.arange(grid.tokens))


def test_an_odd_side_is_rounded_up_when_the_grid_is_halved():
    assert Grid(45, 80, 7).halved == Grid(23, 40, 7)


def region_mask(grid: Grid) -> np.ndarray:
    return windows.region_masks(grid.window)[grid.window_kinds()]


def test_a_window_far_from_the_borders_is_not_masked():
    assert not region_mask(Grid(21, 21, 7))[0].any()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_regions_are_the_published_nine_of_the_whole_grid(grid):
    window, shift = grid.window, grid.window // 2
    regions = np.zeros(grid.padded, int)
    rows, cols = ([(0, side - window), (side - window, side - shift), (side - shift, side)] for side in grid.padded)
    for number, (down, right) in enumerate((down, right) for down in rows for right in cols):
        regions[slice(*down), slice(*right)] = number
    cut = published_cut(regions, grid, shifted=False)

    assert np.array_equal(region_mask(grid)[:, 0] == 0, cut[:, :, None] == cut[:, None])


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_only_neighbours_of_the_padded_grid_attend_to_each_other(grid):
    # The shift wraps the first rows and columns around; within a window, tokens of the two ends stay separate.
    window, shift, (height, width) = grid.window, grid.window // 2, grid.padded
    place = np.roll(np.arange(height * width).reshape(height, width), (-shift, -shift), (0, 1))
    rows, cols = np.divmod(published_cut(place, grid, shifted=False), width)
    near = (abs(rows[:, :, None] - rows[:, None]) < window) & (abs(cols[:, :, None] - cols[:, None]) < window)
    same_end = ((rows < shift)[:, :, None] == (rows < shift)[:, None]) & (
        (cols < shift)[:, :, None] == (cols < shift)[:, None]
    )
    wrapped = np.zeros(grid.windows, bool)
    wrapped[-1, :] = wrapped[:, -1] = True
    mask = region_mask(grid)[:, 0]

    assert not mask[~wrapped.ravel()].any()
    together = mask == 0
    assert (near & same_end)[together].all()
    assert not together[~near].any()


def test_a_masked_pair_gets_no_attention():
    scores = np.array([3.0, 3.0 + windows.MASKED], np.float32)

    assert np.exp(scores - scores.max())[1] == 0


@pytest.mark.parametrize("window", [7, 12])
def test_position_index_is_the_published_table(window):
    name = "bb.layers.0.blocks.0.attn.relative_position_index"

    assert np.array_equal(windows.position_index(window), stand_in(name, (window**2, window**2)))


def test_position_bias_is_looked_up_per_head():
    table = np.arange(169 * 3, dtype=np.float32).reshape(169, 3)
    bias = windows.position_bias(table, 7)

    assert bias.shape == (1, 3, 49, 49)
    # Two places one row apart and in the same column: index (1 + 6) * 13 + 6.
    assert bias[0, 2, 7, 0] == table[97, 2]
