"""The order in which the decoder sees the tiles of the image, and how to put a network right that has the wrong one.

The decoder cuts the image into a grid of tiles, which become the input channels of `ipt_blk5` .. `ipt_blk2`. Until
2024-11-05 the published definition stacked them as (tile column, tile row, colour); since then as (colour, tile row,
tile column). Names and shapes of the weights stayed, so a checkpoint does not tell which order it was trained with.
With the other order the decoder sees a scrambled picture, and no error is reported.

The two are one network up to a permutation of the input channels of four convolutions:

    with_rows(weights, trained)       a checkpoint, for the graph of `network.build`, which cuts by rows
    reorder_tiles(model, trained)     a finished network of others, whatever order its graph cuts in

`softness` measures which order suits: a network that sees a scrambled picture is less certain.

OpenVINO is imported only by the functions that take a finished network: the command that converts does not load it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.contract.errors import BundleError
from worker.convert.birefnet.layout import INNER, TILE_GRIDS

Array = npt.NDArray[np.float32]
Masks = npt.NDArray[np.floating[Any]]

COLOURS = 3
LEVELS = {level: grid for level, grid in TILE_GRIDS.items() if grid > 1}
"""Tiles per side of the levels that have more than one tile."""

_MATCH = 0.99
"""Least correlation of the tiles that a graph cuts with those of a known order."""


_CLOSE = 0.95
"""Ratio of the two values of softness from which a decision is uncertain."""


class TileOrder(StrEnum):
    """Order of the tiles as channels."""

    ROWS = "rows"
    """Colour, tile row, tile column (fastest): the published definition since 2024-11-05."""
    COLUMNS = "columns"
    """Tile column, tile row, colour (fastest): the definition before."""


def channel_order(grid: int, taken: TileOrder, given: TileOrder) -> npt.NDArray[np.int64]:
    """Return for each channel in the order `given` its index in the order `taken`: `values[order]` rearranges.

    Args:
        grid: tiles per side.
        taken: order of the channels that are indexed.
        given: order of the result.
    """
    numbers = np.arange(COLOURS * grid * grid)
    if taken == given:
        return numbers
    if taken == TileOrder.COLUMNS:
        return np.ascontiguousarray(numbers.reshape(grid, grid, COLOURS).transpose(2, 1, 0)).ravel()
    return np.ascontiguousarray(numbers.reshape(COLOURS, grid, grid).transpose(2, 1, 0)).ravel()


def with_rows(weights: Mapping[str, Array], trained: TileOrder) -> dict[str, Array]:
    """Return the arrays of a checkpoint for the graph of `network.build`, which cuts the image by rows.

    Args:
        weights: arrays by published name; they are not changed.
        trained: order that the checkpoint was trained with.
    """
    changed = dict(weights)
    for level, grid in LEVELS.items():
        name = f"decoder.ipt_blk{level}.conv1.weight"
        changed[name] = np.ascontiguousarray(weights[name][:, channel_order(grid, trained, TileOrder.ROWS)])
    return changed


def softness(masks: Masks) -> float:
    """Return the mean of `4 p (1 - p)` over all pixels: 0 if every pixel is 0 or 1, 1 if every pixel is one half.

    Args:
        masks: probabilities.
    """
    values = np.asarray(masks, np.float64)
    return float((4 * values * (1 - values)).mean())


@dataclass(frozen=True)
class OrderDecision:
    """The order that a network was trained with, and why it is taken."""

    order: TileOrder
    reason: str
    softness: Mapping[str, float] | None = None
    """By order, if both were run."""

    @property
    def is_close(self) -> bool:
        """Whether both orders gave nearly the same softness, so that the decision is uncertain."""
        return self.softness is not None and min(self.softness.values()) > _CLOSE * max(self.softness.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        measured = self.softness and {name: round(value, 6) for name, value in self.softness.items()}
        return {"order": str(self.order), "reason": self.reason, "softness": measured}


def decide(masks_with: Callable[[TileOrder], Masks], pictures: int) -> OrderDecision:
    """Run a network with both orders and take the one with the crisper masks.

    Args:
        masks_with: returns the masks of the pictures for a network trained with an order.
        pictures: their number, for the reason.
    """
    found = {order: softness(masks_with(order)) for order in TileOrder}
    best = min(found, key=lambda order: found[order])
    values = ", ".join(f"{order} {value:.4f}" for order, value in found.items())
    reason = f"crisper masks on {pictures} pictures, mean of 4p(1-p): {values}"
    return OrderDecision(best, reason, {str(order): value for order, value in found.items()})


def tile_convolutions(model: Any) -> dict[int, Any] | None:
    """Return the convolutions that read the tiles, by level; None if the network does not have exactly these four.

    They have 64 outputs and 3072, 768, 192 and 48 input channels.
    """
    found: dict[int, list[Any]] = {level: [] for level in LEVELS}
    channels = {COLOURS * grid * grid: level for level, grid in LEVELS.items()}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            shape = node.input(1).get_partial_shape()
            if shape.is_static and shape[0].get_length() == INNER and shape[1].get_length() in channels:
                found[channels[shape[1].get_length()]].append(node)
    if any(len(nodes) != 1 for nodes in found.values()):
        return None
    return {level: nodes[0] for level, nodes in found.items()}


def graph_order(model: Any) -> TileOrder:
    """Find out in which order a network's graph cuts the image, by running its cut on tiles of known grey levels.

    Args:
        model: with one static input `[1, 3, H, W]`; it is not changed.

    Raises:
        BundleError: the network has no tile convolutions, or cuts in neither order.
    """
    orders = {_cut_order(node, grid, model) for node, grid in _with_grids(model)}
    if len(orders) != 1:
        raise BundleError(
            "the levels of this network cut the image in different orders; convert it from its checkpoint"
        )
    return orders.pop()


def reorder_tiles(model: Any, trained: TileOrder) -> Any:
    """Make a finished network compute as it was trained; only input channels of its four tile convolutions move.

    Constants may be float, or integers with scales; everything else stays, bit by bit.

    Args:
        model: with one static input `[1, 3, H, W]`; changed in place.
        trained: order that its weights were trained with.

    Returns:
        The model.

    Raises:
        BundleError: the network has no tile convolutions, cuts in neither order, or the weights of one of them are not
            constants.
    """
    cut = graph_order(model)
    if cut != trained:
        for node, grid in _with_grids(model):
            order = channel_order(grid, trained, cut)
            for port, constant in _constants_by_channel(node, len(order)):
                moved = np.take(constant.data, order, axis=1)
                port.replace_source_output(_constant_like(constant, moved).output(0))
        model.validate_nodes_and_infer_types()
    return model


def check_tiles(model: Any, masks_of: Callable[[Any], Masks], pictures: int) -> OrderDecision:
    """Run a finished network with both orders and say which one it was trained with; the network is not changed.

    Args:
        model: with one static input `[1, 3, H, W]`.
        masks_of: returns the masks of the pictures for a model; it may compile and change the copy it is given.
        pictures: their number.

    Raises:
        BundleError: see `reorder_tiles`.
    """
    return decide(lambda order: masks_of(reorder_tiles(model.clone(), order)), pictures)


def _with_grids(model: Any) -> list[tuple[Any, int]]:
    nodes = tile_convolutions(model)
    if nodes is None:
        raise BundleError(
            "this network has no four convolutions of image tiles (64 outputs; 3072, 768, 192 and 48 inputs); it is no "
            "BiRefNet, or one without tiles"
        )
    return [(nodes[level], grid) for level, grid in LEVELS.items()]


def _cut_order(node: Any, grid: int, model: Any) -> TileOrder:
    """Compare the channels that a convolution reads with the tiles of a picture, cut in both orders.

    Each tile has one random level. Levels are correlated within a colour, because a mean and a scale per colour may be
    part of the graph.
    """
    runtime = _openvino()
    height, width = (int(side) for side in list(model.input(0).get_shape())[2:])
    levels = np.random.default_rng(grid).permutation(COLOURS * grid * grid).reshape(COLOURS, grid, grid)
    tile = np.ones((height // grid, width // grid))
    picture = np.kron(levels / levels.size, tile)[None].astype(np.float32)
    result = runtime.ov.opset13.result(node.input_value(0))
    probe = runtime.ov.Model([result], model.get_parameters(), "tiles")
    compiled = runtime.core().compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    seen = compiled([picture])[0][0].mean((1, 2))
    matches = {order: _match(seen, levels, order) for order in TileOrder}
    best = max(matches, key=lambda order: matches[order])
    if not matches[best] >= _MATCH:
        raise BundleError(
            f"a {grid} x {grid} grid of image tiles is cut in neither known order; convert the network from its "
            "checkpoint"
        )
    return best


def _openvino() -> Any:
    return importlib.import_module("worker.model.inference.runtime")


def _match(seen: npt.NDArray[np.float32], levels: npt.NDArray[np.int64], order: TileOrder) -> float:
    """Return the least correlation, over the colours, of channels with the tiles `[3, grid, grid]` in an order."""
    grid = levels.shape[1]
    arranged = channel_order(grid, TileOrder.ROWS, order)
    expected, colour = levels.ravel()[arranged], arranged // grid**2
    return min(float(np.corrcoef(seen[colour == one], expected[colour == one])[0, 1]) for one in range(COLOURS))


def _constants_by_channel(node: Any, channels: int) -> Sequence[tuple[Any, Any]]:
    """Return the constants behind a convolution's weights that differ by input channel, with the inputs they feed.

    Weights are a constant, or one behind conversions, scales, zero points and FakeQuantize operations.
    """
    found: list[tuple[Any, Any]] = []
    pending = [node.input(1)]
    while pending:
        port = pending.pop()
        source = port.get_source_output().get_node()
        if source.get_type_name() == "Constant":
            shape = list(source.output(0).get_shape())
            if len(shape) > 1 and shape[1] == channels:
                found.append((port, source))
        elif source.get_type_name() in ("Convert", "Multiply", "Subtract", "Add", "FakeQuantize"):
            pending += source.inputs()
        else:
            break
    if not found:
        raise BundleError(f"{node.get_friendly_name()}: its weights are not a constant; convert it from its checkpoint")
    return found


def _constant_like(constant: Any, values: npt.NDArray[Any]) -> Any:
    """Return a constant with other values; type and name stay, marks that describe the old file do not."""
    made = _openvino().ov.opset13.constant(np.ascontiguousarray(values), constant.get_element_type())
    made.set_friendly_name(constant.get_friendly_name())
    return made
