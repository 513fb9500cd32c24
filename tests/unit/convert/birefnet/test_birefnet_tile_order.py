"""Order of the image tiles: permutations, the measure that decides, and the presets."""

from __future__ import annotations

import numpy as np
import pytest

from worker.contract.input_size import InputSize
from worker.convert.birefnet import tile_order
from worker.convert.birefnet.layout import SWIN_L, SWIN_T
from worker.convert.birefnet.presets import PRESETS, find_preset
from worker.convert.birefnet.tile_order import LEVELS, TileOrder, channel_order, decide, softness, with_rows

ROWS, COLUMNS = TileOrder


def cut_by_columns(image: np.ndarray, grid: int) -> np.ndarray:
    """Cut `[3, H, W]` as the definition did before 2024-11-05: columns first, then tiles, stacked whole."""
    columns = np.split(image, grid, axis=2)
    return np.concatenate([tile for column in columns for tile in np.split(column, grid, axis=1)])


def cut_by_rows(image: np.ndarray, grid: int) -> np.ndarray:
    height, width = (side // grid for side in image.shape[1:])
    tiles = image.reshape(3, grid, height, grid, width).transpose(0, 1, 3, 2, 4)
    return tiles.reshape(-1, height, width)


@pytest.mark.parametrize("grid", [4, 8])
def test_one_order_is_the_other_permuted(grid):
    image = np.random.default_rng(1).random((3, 2 * grid, 3 * grid))
    rows, columns = cut_by_rows(image, grid), cut_by_columns(image, grid)

    assert np.array_equal(columns[channel_order(grid, COLUMNS, ROWS)], rows)
    assert np.array_equal(rows[channel_order(grid, ROWS, COLUMNS)], columns)
    assert np.array_equal(rows[channel_order(grid, ROWS, ROWS)], rows)


def test_permuted_weights_see_each_tile_where_they_learned_it():
    rng = np.random.default_rng(2)
    weights = {
        f"decoder.ipt_blk{level}.conv1.weight": rng.random((2, 3 * grid**2, 3, 3)).astype(np.float32)
        for level, grid in LEVELS.items()
    } | {"other": np.ones(3, np.float32)}

    changed = with_rows(weights, COLUMNS)

    image = rng.random((3, 4, 8))
    name = "decoder.ipt_blk2.conv1.weight"
    trained = np.einsum("oi,ihw->ohw", weights[name][:, :, 1, 1], cut_by_columns(image, 4))
    assert np.allclose(np.einsum("oi,ihw->ohw", changed[name][:, :, 1, 1], cut_by_rows(image, 4)), trained)
    assert changed["other"] is weights["other"]
    assert all(np.array_equal(with_rows(weights, ROWS)[key], values) for key, values in weights.items())


@pytest.mark.parametrize(("level", "expected"), [(0.0, 0), (1.0, 0), (0.5, 1), (0.25, 0.75)])
def test_softness_is_the_share_of_half_tones(level, expected):
    assert softness(np.full((2, 4, 4), level, np.float32)) == pytest.approx(expected)


def test_the_order_with_crisper_masks_is_taken_and_both_values_are_given():
    masks = {ROWS: np.full((1, 2, 2), 0.5), COLUMNS: np.full((1, 2, 2), 0.9)}

    decision = decide(masks.__getitem__, pictures=1)

    assert decision.order == COLUMNS
    assert decision.as_dict()["softness"] == {"rows": 1.0, "columns": 0.36}
    assert "mean of 4p(1-p): rows 1.0000, columns 0.3600" in decision.reason


@pytest.mark.parametrize(
    ("source", "sha256", "name"),
    [
        ("hf://ZhengPeng7/BiRefNet_lite", "", "birefnet-lite"),
        ("hf://ZhengPeng7/BiRefNet@main", "", "birefnet-general"),
        ("hf://zhengpeng7/birefnet_hr", "", "birefnet-hr"),
        ("birefnet-portrait", "", "birefnet-portrait"),
        ("model.safetensors", "4417d897" + "0" * 56, "birefnet-lite"),
        ("model.safetensors", "f" * 64, None),
        ("hf://somebody/BiRefNet", "", None),
    ],
)
def test_a_checkpoint_is_recognised_by_repository_name_or_digest(source, sha256, name):
    found = find_preset(source, sha256)

    assert (found and found.name) == name


def test_the_presets_say_what_was_published():
    by_name = {preset.name: preset for preset in PRESETS}

    assert len(by_name) == len(PRESETS)
    assert by_name["birefnet-lite"].tile_order == COLUMNS
    assert by_name["birefnet-lite-2k"].sizes == (InputSize(1440, 2560),)
    assert by_name["birefnet-hr"].sizes == (InputSize.square(2048),)
    assert by_name["birefnet-hr"].tile_order == ROWS
    assert by_name["birefnet-512"].tile_order is None
    assert {preset.backbone for preset in PRESETS if "lite" in preset.name} == {SWIN_T}
    assert {preset.backbone for preset in PRESETS if "lite" not in preset.name} == {SWIN_L}
    assert [preset.name for preset in PRESETS if not preset.commercial] == ["rmbg-2"]
    assert all(size.is_multiple_of(32) for preset in PRESETS for size in preset.sizes)


def test_converting_does_not_load_openvino_for_the_order():
    assert not hasattr(tile_order, "ov")


@pytest.mark.parametrize(("rows", "is_close"), [(0.5, True), (0.9, False)])
def test_nearly_equal_masks_leave_the_order_uncertain(rows, is_close):
    masks = {ROWS: np.full((1, 2, 2), rows), COLUMNS: np.full((1, 2, 2), 0.52)}

    assert decide(masks.__getitem__, pictures=1).is_close is is_close
