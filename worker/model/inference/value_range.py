"""Find out from a graph whether its output is a probability already, so that it never gets a second sigmoid.

The range of every value behind the last layer follows from its operations: a sigmoid lies in 0..1, a resize keeps the
range, `1 - x` mirrors it, a convolution forgets it. An output whose range lies in 0..1 is a probability, whether a
sigmoid, a softmax, a clamp or a stretch to 0..1 stands behind the last layer, and whatever follows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

_TOLERANCE = 1e-3
"""Of the ends of 0..1: half-precision constants and levels of a quantised output miss them by less."""

_LARGEST_CONSTANT = 1 << 20
"""Elements; the range of a larger constant is not computed."""

_MOST_NODES = 200
"""Nodes behind the last layer that are followed. Real networks have a handful."""


@dataclass(frozen=True)
class ValueRange:
    """The smallest interval known to hold every element of a value."""

    low: float = -math.inf
    high: float = math.inf
    origin: str = ""
    """The operation that the limits come from, such as `Sigmoid (1959)`; empty if there is none."""

    @property
    def is_probability(self) -> bool:
        """Whether every element lies in 0..1."""
        return self.low >= -_TOLERANCE and self.high <= 1 + _TOLERANCE

    @property
    def never_negative(self) -> bool:
        """Whether no element is below 0, which logits are wherever there is background."""
        return self.low >= 0


_UNKNOWN = ValueRange()


def value_range(output: Any) -> ValueRange:
    """Return the range of an `openvino.Output`, as far as the operations behind the last layer limit it."""
    return _Ranges().of(output)


class _Ranges:
    """The ranges found in one graph, so that no node is visited twice."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], ValueRange] = {}

    def of(self, output: Any) -> ValueRange:
        node = output.get_node()
        key = node.get_friendly_name(), output.get_index()
        if key not in self._known:
            if len(self._known) >= _MOST_NODES:
                return _UNKNOWN
            self._known[key] = _UNKNOWN  # for the visits below this one
            self._known[key] = self._compute(node)
        return self._known[key]

    def _compute(self, node: Any) -> ValueRange:
        kind = node.get_type_name()
        if kind in _LIMITED:
            return ValueRange(*_LIMITED[kind], origin=_label(node))
        if kind in _KEEPING:
            return self.of(node.input_value(0))
        rule = _RULES.get(kind)
        return rule(self, node) if rule else _UNKNOWN

    def inputs(self, node: Any) -> list[ValueRange]:
        return [self.of(node.input_value(index)) for index in range(node.get_input_size())]


_LIMITED = {"Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "SoftMax": (0.0, 1.0), "Softmax": (0.0, 1.0)} | {
    "Tanh": (-1.0, 1.0)
}
"""Operations whose range does not depend on their input."""

_KEEPING = frozenset(
    {
        *("Convert", "ConvertLike", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Broadcast", "Tile"),
        *("StridedSlice", "Slice", "Gather", "GatherElements", "GatherND", "Split", "VariadicSplit"),
        *("MaxPool", "ReduceMean", "ReduceMax", "ReduceMin", "Interpolate", "Round", "DepthToSpace", "Identity"),
    }
)
"""Operations whose range is that of their first input. A cubic resize overshoots a little, which the engine clamps."""


def _label(node: Any) -> str:
    return f"{node.get_type_name()} ({node.get_friendly_name()})"


def _constant(_: _Ranges, node: Any) -> ValueRange:
    data = node.get_data() if math.prod(node.get_output_shape(0)) <= _LARGEST_CONSTANT else np.empty(0)
    if not data.size or data.dtype.kind not in "fiub":
        return _UNKNOWN
    low, high = float(data.min()), float(data.max())
    return ValueRange(low, high) if math.isfinite(low) and math.isfinite(high) else _UNKNOWN


def _clamp(ranges: _Ranges, node: Any) -> ValueRange:
    inner, limits = ranges.of(node.input_value(0)), node.get_attributes()
    return _within(inner, float(limits["min"]), float(limits["max"]), _label(node))


def _minimum(ranges: _Ranges, node: Any) -> ValueRange:
    one, other = ranges.inputs(node)
    return ValueRange(min(one.low, other.low), min(one.high, other.high), one.origin or other.origin or _label(node))


def _maximum(ranges: _Ranges, node: Any) -> ValueRange:
    one, other = ranges.inputs(node)
    return ValueRange(max(one.low, other.low), max(one.high, other.high), one.origin or other.origin or _label(node))


def _relu(ranges: _Ranges, node: Any) -> ValueRange:
    return _within(ranges.of(node.input_value(0)), 0.0, math.inf, _label(node))


def _exp(ranges: _Ranges, node: Any) -> ValueRange:
    inner = ranges.of(node.input_value(0))
    high = math.exp(inner.high) if inner.high < 80 else math.inf  # noqa: PLR2004 -- near the largest float32
    return ValueRange(0.0, high, inner.origin or _label(node))


def _fake_quantize(_: _Ranges, node: Any) -> ValueRange:
    ends = [node.input_value(index).get_node() for index in (3, 4)]
    if any(end.get_type_name() != "Constant" for end in ends):
        return _UNKNOWN
    low, high = (end.get_data() for end in ends)
    return ValueRange(float(low.min()), float(high.max()), _label(node))


def _concat(ranges: _Ranges, node: Any) -> ValueRange:
    parts = ranges.inputs(node)
    return ValueRange(
        min(part.low for part in parts),
        max(part.high for part in parts),
        next((p.origin for p in parts if p.origin), ""),
    )


def _add(ranges: _Ranges, node: Any) -> ValueRange:
    one, other = ranges.inputs(node)
    return ValueRange(one.low + other.low, one.high + other.high, one.origin or other.origin)


def _subtract(ranges: _Ranges, node: Any) -> ValueRange:
    one, other = ranges.inputs(node)
    return ValueRange(one.low - other.high, one.high - other.low, one.origin or other.origin)


def _multiply(ranges: _Ranges, node: Any) -> ValueRange:
    return _product(*ranges.inputs(node))


def _divide(ranges: _Ranges, node: Any) -> ValueRange:
    if _is_stretch(node) or _is_softmax(node):
        return ValueRange(0.0, 1.0, _label(node))
    one, other = ranges.inputs(node)
    if not other.low > 0:
        return _UNKNOWN
    return _product(one, ValueRange(1 / other.high, 1 / other.low, other.origin))


def _product(one: ValueRange, other: ValueRange) -> ValueRange:
    corners = [
        0.0 if 0 in (a, b) else a * b for a in (one.low, one.high) for b in (other.low, other.high)
    ]  # 0 times infinity is 0 here
    return ValueRange(min(corners), max(corners), one.origin or other.origin)


def _within(inner: ValueRange, low: float, high: float, origin: str) -> ValueRange:
    """The range after a clamp. The origin stays if the clamp changes nothing."""
    clamped = max(inner.low, low), min(inner.high, high)
    return inner if clamped == (inner.low, inner.high) else ValueRange(*clamped, origin)


def _is_stretch(node: Any) -> bool:
    """Whether a division is (x - min) / (max - min), with or without a small number that avoids a division by 0."""
    above, below = node.input_value(0).get_node(), node.input_value(1).get_node()
    return (
        above.get_type_name() == "Subtract"
        and _behind(above.input_value(1)) == "ReduceMin"
        and _leads_to(below, "ReduceMax")
        and _leads_to(below, "ReduceMin")
    )


def _is_softmax(node: Any) -> bool:
    """Whether a division is exp(x) / sum(exp(x))."""
    above, below = node.input_value(0).get_node(), node.input_value(1).get_node()
    if above.get_type_name() != "Exp" or below.get_type_name() != "ReduceSum":
        return False
    return bool(below.input_value(0).get_node().get_friendly_name() == above.get_friendly_name())


def _behind(output: Any) -> str:
    """Type of the operation behind changes of shape."""
    node = output.get_node()
    while node.get_type_name() in ("Reshape", "Squeeze", "Unsqueeze", "Broadcast", "Convert"):
        node = node.input_value(0).get_node()
    return str(node.get_type_name())


def _leads_to(node: Any, kind: str, steps: int = 5) -> bool:
    """Whether an operation of this type stands at most so many steps before a node."""
    if node.get_type_name() == kind:
        return True
    inputs = (node.input_value(index).get_node() for index in range(node.get_input_size()))
    return steps > 0 and any(_leads_to(one, kind, steps - 1) for one in inputs)


_RULES: dict[str, Callable[[_Ranges, Any], ValueRange]] = {
    "Constant": _constant,
    "Clamp": _clamp,
    "Minimum": _minimum,
    "Maximum": _maximum,
    "Relu": _relu,
    "ReLU": _relu,
    "Exp": _exp,
    "FakeQuantize": _fake_quantize,
    "Concat": _concat,
    "Add": _add,
    "Subtract": _subtract,
    "Multiply": _multiply,
    "Divide": _divide,
}
