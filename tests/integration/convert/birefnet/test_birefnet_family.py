"""Swin-L, inputs that are not square, and both orders of the image tiles, compared with the published definition."""

from __future__ import annotations

import numpy as np
import openvino as ov
import psutil
import pytest

from support import kernels
from support.birefnet_weights import DATA, SWIN_L, stand_in_image, stand_in_state_dict
from worker.contract.errors import BundleError
from worker.contract.input_size import InputSize
from worker.convert.birefnet import checkpoint
from worker.convert.birefnet.network import build
from worker.convert.birefnet.rewrites import ALL, NONE
from worker.convert.birefnet.tile_order import (
    LEVELS,
    TileOrder,
    check_tiles,
    graph_order,
    reorder_tiles,
    tile_convolutions,
    with_rows,
)
from worker.convert.quantise import weight_only
from worker.model.inference import runtime

AGREEMENT = 2e-4  # with the published definition; the logits have a spread of 1.7 to 2.4
ROWS, COLUMNS = TileOrder
KEYS = {ROWS: "logits", COLUMNS: "logits_columns"}

ODD_BOTH, ODD_HEIGHT, WIDE = (96, 160), (96, 128), (192, 320)
"""The half pass of 96 x 160 has odd grids on both axes, that of 96 x 128 on one, as 1440 x 2560 has."""


@pytest.fixture(scope="module")
def lite() -> dict[str, np.ndarray]:
    return checkpoint.validate(stand_in_state_dict(), "stand-in")


@pytest.fixture(scope="module")
def swin_l() -> dict[str, np.ndarray]:
    """To draw 220 million numbers takes longer than to run the network."""
    return checkpoint.validate(stand_in_state_dict(table=SWIN_L), "stand-in")


def infer(model: ov.Model, sides: tuple[int, int]) -> np.ndarray:
    compiled = runtime.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled([stand_in_image(sides)])[0]


def reference(sides: tuple[int, int]) -> dict[str, np.ndarray]:
    return dict(np.load(DATA / f"reference_lite_{sides[0]}x{sides[1]}.npz"))


@pytest.mark.parametrize(
    ("sides", "rewrites", "order"),
    [
        (ODD_BOTH, NONE, ROWS),
        (ODD_BOTH, ALL, COLUMNS),
        (ODD_HEIGHT, NONE, COLUMNS),
        (ODD_HEIGHT, ALL, ROWS),
        (WIDE, ALL, COLUMNS),
    ],
)
def test_inputs_that_are_not_square_agree_in_both_orders(lite, sides, rewrites, order):
    logits = infer(build(with_rows(lite, order), InputSize(*sides), rewrites), sides)

    expected = reference(sides)
    other = expected[KEYS[COLUMNS if order == ROWS else ROWS]]
    assert abs(logits - expected[KEYS[order]]).max() <= AGREEMENT
    assert abs(logits - other).mean() > 0.5  # the wrong order is another network


def test_the_native_kernels_agree_on_an_odd_grid(lite):
    kernels.need_library()
    model = build(with_rows(lite, COLUMNS), InputSize(*ODD_BOTH), ALL)
    done = kernels.replaced(model, "f32")

    logits = kernels.run(kernels.compiled(model), [stand_in_image(ODD_BOTH)])

    assert (done.replaced, done.left) == (20, 0)
    assert abs(logits - reference(ODD_BOTH)["logits_columns"]).max() <= AGREEMENT


@pytest.mark.skipif(psutil.virtual_memory().available < 6 << 30, reason="220 million parameters need 5 GiB of memory")
@pytest.mark.parametrize(("rewrites", "order"), [pytest.param(NONE, ROWS, marks=pytest.mark.long), (ALL, COLUMNS)])
def test_swin_l_agrees(swin_l, rewrites, order):
    expected = dict(np.load(DATA / "reference_swin_l_256.npz"))
    model = build(with_rows(swin_l, order), InputSize.square(256), rewrites)
    model.add_outputs(["bb.3", "squeeze"])
    compiled = runtime.core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    found = {port.get_any_name(): values for port, values in compiled([stand_in_image(256)]).items()}

    for name, key in (("logits", KEYS[order]), ("bb.3", "bb.3"), ("squeeze", "squeeze")):
        assert abs(found[name] - expected[key]).max() <= AGREEMENT, name


@pytest.mark.skipif(psutil.virtual_memory().available < 6 << 30, reason="220 million parameters need 5 GiB of memory")
def test_the_native_kernels_agree_on_swin_l(swin_l):
    kernels.need_library()
    expected = np.load(DATA / "reference_swin_l_256.npz")["logits"]
    model = build(swin_l, InputSize.square(256), ALL)
    done = kernels.replaced(model, "f32")

    logits = kernels.run(kernels.compiled(model), [stand_in_image(256)])

    assert done.left == 0 and done.replaced > 0
    assert abs(logits - expected).max() <= AGREEMENT


def small(weights: dict[str, np.ndarray]) -> ov.Model:
    return build(weights, InputSize(*ODD_HEIGHT), ALL)


@pytest.mark.parametrize("stored", ["f16", "int8 weights"])
def test_a_finished_network_is_put_right(lite, tmp_path, stored):
    """Weights trained by columns in a graph that cuts by rows, as today's published code exports them."""
    wrong, right = small(lite), small(with_rows(lite, COLUMNS))
    if stored == "int8 weights":
        wrong, right = weight_only(wrong), weight_only(right)
    for name, model in (("wrong", wrong), ("right", right)):
        ov.save_model(model, str(tmp_path / f"{name}.xml"), compress_to_fp16=stored == "f16")
    wrong, right = (runtime.core().read_model(str(tmp_path / f"{name}.xml")) for name in ("wrong", "right"))

    assert graph_order(wrong) == ROWS
    changed = reorder_tiles(wrong.clone(), COLUMNS)

    expected = infer(right, ODD_HEIGHT)
    assert abs(infer(wrong, ODD_HEIGHT) - expected).mean() > 0.5
    assert abs(infer(changed, ODD_HEIGHT) - expected).max() <= 1e-4
    ov.save_model(changed, str(tmp_path / "changed.xml"), compress_to_fp16=False)
    assert (tmp_path / "changed.bin").stat().st_size == (tmp_path / "right.bin").stat().st_size


def cut_by_columns(model: ov.Model) -> ov.Model:
    """Reorder the tiles, not the weights; by Transpose, as 2026.4 fuses a Gather into a convolution the wrong way."""
    ops = ov.opset13
    for level, node in tile_convolutions(model).items():
        grid, tiles = LEVELS[level], node.input_value(0)
        height, width = list(tiles.get_shape())[2:]
        split = ops.reshape(tiles, np.array([1, 3, grid, grid, height, width]), special_zero=False)
        moved = ops.transpose(split, np.array([0, 3, 2, 1, 4, 5]))
        joined = ops.reshape(moved, np.array([1, 3 * grid**2, height, width]), special_zero=False)
        node.input(0).replace_source_output(joined.output(0))
    model.validate_nodes_and_infer_types()
    return model


def test_a_graph_that_cuts_by_columns_is_recognised(lite):
    """The graph of the definition before 2024-11-05: weights of that time are right in it as they are."""
    model = cut_by_columns(small(lite))
    before = infer(model, ODD_HEIGHT)

    assert graph_order(model) == COLUMNS
    assert np.array_equal(infer(reorder_tiles(model.clone(), COLUMNS), ODD_HEIGHT), before)
    assert abs(before - reference(ODD_HEIGHT)["logits_columns"]).max() <= AGREEMENT
    rows = infer(reorder_tiles(model, ROWS), ODD_HEIGHT)
    assert abs(rows - reference(ODD_HEIGHT)["logits"]).max() <= AGREEMENT


def test_the_check_runs_both_orders_and_leaves_the_network_alone(lite):
    model = small(lite)
    before = infer(model, ODD_HEIGHT)
    runs = []

    def masks_of(candidate: ov.Model) -> np.ndarray:
        logits = infer(candidate, ODD_HEIGHT)
        runs.append(logits)
        gain = 1 if len(runs) == 1 else 8  # the second order is made the crisper one
        return 1 / (1 + np.exp(-gain * logits))

    decision = check_tiles(model, masks_of, pictures=1)

    assert decision.order == COLUMNS
    assert decision.softness["columns"] < decision.softness["rows"]
    for found, order in zip(runs, TileOrder, strict=True):
        assert abs(found - reference(ODD_HEIGHT)[KEYS[order]]).max() <= AGREEMENT
    assert np.array_equal(infer(model, ODD_HEIGHT), before)


def test_another_network_is_refused():
    ops = ov.opset13
    image = ops.parameter([1, 3, 64, 64], ov.Type.f32)
    model = ov.Model([ops.result(ops.relu(image))], [image], "other")

    assert tile_convolutions(model) is None
    with pytest.raises(BundleError, match="no four convolutions of image tiles"):
        reorder_tiles(model, COLUMNS)
