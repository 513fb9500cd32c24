"""Replace convolutions that return one channel while a model is loaded.

    Convolution [1,C,h,w] -> [1,1,h,w]   becomes   Convolution, stride 4 -> [1,16,h/4,w/4], DepthToSpace -> [1,1,h,w]

oneDNN computes the channels of an output in groups of 16, as many as a register holds, so a convolution to one channel
takes as long as one to 16. Here the 16 channels are the pixels of a block of 4 x 4, each computed with a copy of the
kernel at its place among zeros. A 3 x 3 kernel becomes one of 6 x 6, at a sixteenth of the places: a quarter of the
work. U²-Net and IS-Net end with such convolutions. The sums are the same; in float they differ by rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.model.inference.runtime import ov

BLOCK = 4
_SMALLEST = 64 * 64
"""Output pixels below which nothing is gained."""


@dataclass(frozen=True)
class _Weights:
    """Weights `[1,C,k,k]` as stored, and the scale that a quantised network multiplies them with."""

    stored: npt.NDArray[Any]
    scale: npt.NDArray[Any] | None
    kind: Any
    """Element type in which the convolution reads them."""


def replace(model: Any) -> int:
    """Replace every convolution to one channel in `model`; return their number.

    Args:
        model: changed in place. What has a stride, a dilation, a kernel of 1 x 1 or sides that are no whole blocks is
            left as it is.
    """
    replaced = 0
    for node in model.get_ordered_ops():
        weights = _weights(node) if node.get_type_name() == "Convolution" and _fits(node) else None
        if weights is None:
            continue
        # A bias is added to the blocks: behind them, it would be a pass of its own.
        last = _bias(node)
        result = _as_blocks(node, weights)
        if last is not node:
            result = ov.opset13.add(result, last.input_value(1))
        pixels = ov.opset13.depth_to_space(result, "blocks_first", BLOCK)
        pixels.set_friendly_name(last.get_friendly_name())
        for target in last.output(0).get_target_inputs():
            target.replace_source_output(pixels.output(0))
        replaced += 1
    return replaced


def _fits(node: Any) -> bool:
    output, kernel = node.output(0).get_partial_shape(), node.input_value(1).get_partial_shape()
    if output.is_dynamic or kernel.is_dynamic or output.rank.get_length() != 4:  # noqa: PLR2004  NCHW
        return False
    given = node.get_attributes()
    _, channels, height, width = output.to_shape()
    plain = list(given["strides"]) == [1, 1] == list(given["dilations"]) and given["auto_pad"] == "explicit"
    whole = height % BLOCK == width % BLOCK == 0 and height * width >= _SMALLEST
    return channels == 1 and plain and whole and max(kernel.to_shape()[2:]) > 1


def _weights(node: Any) -> _Weights | None:
    """Return the constant weights of a convolution: plain, widened from f16, or in INT8 with a scale."""
    source, scale = node.input_value(1).get_node(), None
    kind = source.get_element_type()
    if source.get_type_name() == "Multiply":
        factor = _constant(source.input_value(1).get_node())
        if factor is None or factor.size != 1:
            return None
        source, scale = source.input_value(0).get_node(), factor
    stored = _constant(source)
    return None if stored is None else _Weights(stored, scale, kind)


def _constant(node: Any) -> npt.NDArray[Any] | None:
    """Return the values of a constant, also behind a conversion."""
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node.get_data() if node.get_type_name() == "Constant" else None


def _bias(node: Any) -> Any:
    """Return the addition of one constant that alone reads the convolution, or the convolution itself."""
    targets = list(node.output(0).get_target_inputs())
    reader = targets[0].get_node() if len(targets) == 1 else node
    if reader.get_type_name() != "Add" or reader.input_value(0).get_node().get_name() != node.get_name():
        return node
    added = _constant(reader.input_value(1).get_node())
    return reader if added is not None and added.size == 1 else node


def _as_blocks(node: Any, weights: _Weights) -> Any:
    ops, given = ov.opset13, node.get_attributes()
    _, channels, rows, columns = weights.stored.shape
    spread = np.zeros((BLOCK * BLOCK, channels, rows + BLOCK - 1, columns + BLOCK - 1), weights.stored.dtype)
    for y in range(BLOCK):
        for x in range(BLOCK):
            spread[y * BLOCK + x, :, y : y + rows, x : x + columns] = weights.stored[0]
    kernel = ops.constant(spread)
    if kernel.get_element_type() != weights.kind:
        kernel = ops.convert(kernel, weights.kind)
    if weights.scale is not None:
        kernel = ops.multiply(kernel, ops.convert(ops.constant(weights.scale), weights.kind))
    pads = given["pads_begin"], given["pads_end"]
    return ops.convolution(node.input_value(0), kernel, [BLOCK, BLOCK], *pads, [1, 1])
