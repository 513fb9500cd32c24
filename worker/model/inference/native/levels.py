"""Read how a graph quantises its values, and connect the native operations, which return levels, to their readers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.model.inference.runtime import ov

LARGEST = 255
"""Levels are 0 to 255."""

_TOLERANCE = 1e-2
"""Of a zero, which NNCF makes a whole number: by how much rounding of the range in float32 moves it."""

_DEPTH = 6
"""Operations between a table and the constants of which it is computed."""

_FOLDED = frozenset(
    {"Add", "Convert", "Gather", "Multiply", "Reshape", "Squeeze", "Subtract", "Transpose", "Unsqueeze"}
)
"""Operations with which converters write tables and stored weights. Files are not trusted: others may run for ever."""

_MOST_VALUES = 1 << 26
"""Of a table: 256 MiB. The largest are the masks of the first layer, a million values at 512."""

_NARROWEST = 1e-30
"""Range whose levels per unit float32 can hold."""

_UNFUSED_RANK = 7

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Levels:
    """The levels of a value: round(value * per_unit + zero), limited to 0..255."""

    per_unit: float
    zero: float


def levels_of(quantise: Any) -> Levels | None:
    """Return the levels of a FakeQuantize with 256 of them for all channels; None for another.

    Args:
        quantise: the node; other operations give None, too.
    """
    if quantise.get_type_name() != "FakeQuantize" or quantise.get_attributes()["levels"] != LARGEST + 1:
        return None
    ranges = [folded(quantise.input_value(index)) for index in range(1, 5)]
    if any(one is None or one.size != 1 for one in ranges):
        return None
    low, high, least, most = (float(one.item()) for one in ranges if one is not None)
    if not (low == least <= 0 <= high == most and low < high):
        return None
    if not _NARROWEST < high - low < math.inf:
        return None
    per_unit = LARGEST / (high - low)
    zero = -low * per_unit
    return Levels(per_unit, float(round(zero))) if abs(zero - round(zero)) < _TOLERANCE else None


def as_values(made: Any, levels: Levels) -> Any:
    """Return the values that levels u8 stand for, in the form that OpenVINO folds into an INT8 reader.

    The FakeQuantize before that reader must stay: OpenVINO computes the reader in INT8 because of it, and drops both.
    """
    ops, shape = ov.opset13, [1] * made.get_output_partial_shape(0).rank.get_length()
    values = ops.convert(made, "f32")
    if levels.zero:
        values = ops.subtract(values, ops.constant(np.full(shape, levels.zero, np.float32)))
    return ops.multiply(values, ops.constant(np.full(shape, 1 / levels.per_unit, np.float32)))


def as_stored(tokens: Any, floats: str) -> Any:
    """Return tokens `[1, tokens, channels]` as a native operation takes them: in the arithmetic of the float part.

    In bf16 the plugin has them in bf16 already. Asked for f32, as the graph says, it would copy all of them. So it
    would for a conversion to bf16, unless its rank is above 6: the plugin's compiler of element-wise operations leaves
    that alone, and the conversion is dropped (seen with OpenVINO 2026.4).

    Args:
        tokens: an output of the graph.
        floats: arithmetic of the float part: f32, bf16 or f16.
    """
    if floats != "bf16":
        return tokens
    ops, shape = ov.opset13, list(tokens.get_shape())
    shape = [1] * (_UNFUSED_RANK - len(shape)) + shape
    return ops.convert(ops.reshape(tokens, ops.constant(np.array(shape, np.int64)), False), "bf16").output(0)


def folded(value: Any, depth: int = _DEPTH) -> Array | None:
    """Return the values of a constant, or of what is computed from constants; None for others."""
    node, shape = value.get_node(), value.get_partial_shape()
    if node.get_type_name() == "Constant":
        data: Array = node.get_data()
        return data
    if not depth or node.get_type_name() not in _FOLDED or shape.is_dynamic:
        return None
    if math.prod(shape.to_shape()) > _MOST_VALUES:
        return None
    inputs: list[Any] = []
    for one in node.input_values():
        known = folded(one, depth - 1)
        if known is None:
            return None
        inputs.append(ov.Tensor(np.ascontiguousarray(known)))
    outputs = [ov.Tensor(value.get_element_type(), value.get_shape())]
    return np.array(outputs[0].data) if node.evaluate(outputs, inputs) else None


def only_follower(node: Any) -> Any | None:
    """Return the operation that alone reads a node with one output; None if there are several, or none."""
    targets = list(node.output(0).get_target_inputs())
    return targets[0].get_node() if len(targets) == 1 else None
