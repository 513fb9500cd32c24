"""Constants of shifted-window attention, compared with the plain pad, roll and cut that they replace."""

from __future__ import annotations

import numpy as np
import pytest

from support.birefnet_weights import stand_in
from worker.convert.birefnet import windows

SIZES = [1, 2, 6, 7, 8, 14, 20]


def published_cut(grid: np.ndarray, *, shifted: bool) -> np.ndarray:
    missing = -len(grid) % 7
    grid = np.pad(grid, (0, missing), constant_values=grid.size)
    if shifted:
        grid = np.roll(grid, (-3, -3), (0, 1))
    rows = [
        grid[row : row + 7, col : col + 7].ravel() for row in range(0, len(grid), 7) for col in range(0, len(grid), 7)
    ]
    return np.array(rows)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_tokens_have_the_positions_of_pad_roll_and_cut(size, shifted):
    grid = np.arange(size * size).reshape(size, size)

    assert np.array_equal(windows.token_order(size, shifted=shifted), published_cut(grid, shifted=shifted))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_the_inverse_order_finds_every_token(size, shifted):
    order = windows.token_order(size, shifted=shifted).ravel()

    assert np.array_equal(order[windows.window_order(size, shifted=shifted)], np.arange(size * size))


def region_mask(size: int) -> np.ndarray:
    return windows.region_masks()[windows.window_kinds(size)]


def test_a_window_far_from_the_borders_is_not_masked():
    assert not region_mask(21)[0].any()


@pytest.mark.parametrize("size", SIZES)
def test_regions_are_the_published_nine_of_the_whole_grid(size):
    side = windows.padded(size)
    regions = np.zeros((side, side), int)
    bounds = [(0, side - 7), (side - 7, side - 3), (side - 3, side)]
    for number, (rows, cols) in enumerate((rows, cols) for rows in bounds for cols in bounds):
        regions[slice(*rows), slice(*cols)] = number
    cut = published_cut(regions, shifted=False)

    assert np.array_equal(region_mask(size)[:, 0] == 0, cut[:, :, None] == cut[:, None])


@pytest.mark.parametrize("size", SIZES)
def test_only_neighbours_of_the_padded_grid_attend_to_each_other(size):
    # The shift wraps the first three rows and columns around; within a window, tokens of the two ends stay separate.
    side = windows.padded(size)
    place = np.roll(np.arange(side * side).reshape(side, side), (-3, -3), (0, 1))
    rows, cols = np.divmod(published_cut(place, shifted=False), side)
    near = (abs(rows[:, :, None] - rows[:, None]) < 7) & (abs(cols[:, :, None] - cols[:, None]) < 7)
    same_end = ((rows < 3)[:, :, None] == (rows < 3)[:, None]) & ((cols < 3)[:, :, None] == (cols < 3)[:, None])
    wrapped = np.zeros((side // 7, side // 7), bool)
    wrapped[-1, :] = wrapped[:, -1] = True
    mask = region_mask(size)[:, 0]

    assert not mask[~wrapped.ravel()].any()
    together = mask == 0
    assert (near & same_end)[together].all()
    assert not together[~near].any()


def test_a_masked_pair_gets_no_attention():
    scores = np.array([3.0, 3.0 + windows.MASKED], np.float32)

    assert np.exp(scores - scores.max())[1] == 0


def test_position_index_is_the_published_table():
    name = "bb.layers.0.blocks.0.attn.relative_position_index"

    assert np.array_equal(windows.position_index(), stand_in(name, (49, 49)))


def test_position_bias_is_looked_up_per_head():
    table = np.arange(169 * 3, dtype=np.float32).reshape(169, 3)
    bias = windows.position_bias(table)

    assert bias.shape == (1, 3, 49, 49)
    # Two places one row apart and in the same column: index (1 + 6) * 13 + 6.
    assert bias[0, 2, 7, 0] == table[97, 2]
