"""The OpenVINO operations in which the equations of `contrast` are written, with arrays and numbers as constants.

Planes are nodes `[1, 1, R, R]` of one channel; OpenVINO fuses arithmetic on them into one pass. `stacked` concatenates
planes for a pooling or a sum over all channels at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from openvino import opset1  # its MaxPool has one output; later ones also give indices
from openvino import opset15 as op

Node = Any
"""An OpenVINO node with one output; + - * / work on two of them."""

Array = npt.NDArray[Any]


def real(value: npt.ArrayLike) -> Node:
    """Return an f32 constant."""
    return op.constant(np.asarray(value, np.float32))


def whole(value: npt.ArrayLike) -> Node:
    """Return an i64 constant, for axes, indices and shapes."""
    return op.constant(np.asarray(value, np.int64))


def total(nodes: Sequence[Node]) -> Node:
    """Sum nodes from left to right."""
    result = nodes[0]
    for node in nodes[1:]:
        result = result + node
    return result


def dot(left: Sequence[Node], right: Sequence[Node]) -> Node:
    """Compute the scalar product of two lists of planes for each pixel."""
    return total([a * b for a, b in zip(left, right, strict=True)])


def stacked(planes: Sequence[Node]) -> Node:
    """Concatenate planes or stacks along the channels."""
    return op.concat(list(planes), 1)


def planes(stack: Node) -> list[Node]:
    """Split a stack into one plane per channel."""
    return [op.gather(stack, whole([k]), whole(1)) for k in range(stack.shape[1])]


def reshaped(node: Node, *shape: int) -> Node:
    """Reshape like `numpy.reshape`."""
    return op.reshape(node, whole(shape), False)


def summed(node: Node, *axes: int, keep: bool = False) -> Node:
    """Sum over axes like `numpy.sum`."""
    return op.reduce_sum(node, whole(axes), keep)


def averaged(node: Node, *axes: int) -> Node:
    """Average over axes like `numpy.mean`."""
    return op.reduce_mean(node, whole(axes), False)


def squared_length(node: Node, axis: int) -> Node:
    """Sum squares along an axis, which is kept with length 1."""
    return summed(node * node, axis, keep=True)


def median(rows: Node) -> Node:
    """Compute the lower median of each row: `[K, N]` to `[K, 1]`."""
    half = whole(rows.shape[1] // 2)
    return op.reduce_max(op.topk(rows, half, 1, "min", "value").output(0), whole([1]), True)


def pooled(stack: Node, side: int) -> Node:
    """Average square cells: `[1, C, R, R]` to `[1, C, R/side, R/side]`."""
    return op.avg_pool(stack, [side, side], [0, 0], [0, 0], [side, side], True)


def box(stack: Node, radius: int) -> Node:
    """Average a square window, smaller at the border, by rows and then columns: 2 w reads per pixel instead of w^2."""
    width = 2 * radius + 1
    across = op.avg_pool(stack, [1, 1], [0, radius], [0, radius], [1, width], True)
    return op.avg_pool(across, [1, 1], [radius, 0], [radius, 0], [width, 1], True)


def dilated(stack: Node, radius: int) -> Node:
    """Compute the maximum over a square window."""
    width, pad = [2 * radius + 1] * 2, [radius] * 2
    return opset1.max_pool(stack, [1, 1], pad, pad, width)


def enlarged(stack: Node, factor: int) -> Node:
    """Enlarge `[1, C, n, n]` to `[1, C, n * factor, n * factor]` nearly bilinearly: repeat values, then average cells.

    It avoids Interpolate, with which the CPU plugin would convert everything before it to bf16.
    """
    channels, n = stack.shape[1], stack.shape[3]
    spread = op.broadcast(reshaped(stack, channels, n, 1, n, 1), whole([channels, n, factor, n, factor]))
    return box(reshaped(spread, 1, channels, n * factor, n * factor), factor // 2)
