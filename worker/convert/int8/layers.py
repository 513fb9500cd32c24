"""The operations of a network that carry weights, and the quantisers in front of them."""

from __future__ import annotations

from typing import Any

import numpy as np

LAYERS = frozenset(
    {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
)
"""Types of operations that INT8 makes faster."""

QUANTISER = "FakeQuantize"

_MOVING = frozenset(
    {
        *("Concat", "Interpolate", "MaxPool", "Pad", "Reshape", "Slice", "Split", "Squeeze", "StridedSlice"),
        *("Transpose", "Unsqueeze", "VariadicSplit"),
    }
)
"""Types of operations that move values without computing; a quantiser may stand before them."""


def layers(model: Any) -> dict[str, Any]:
    """Return the layers by friendly name, in the order of computation."""
    return {node.get_friendly_name(): node for node in model.get_ordered_ops() if node.get_type_name() in LAYERS}


def products(layer: Any) -> int:
    """Return the number of products that a layer computes for one picture."""
    output, weights = list(layer.get_output_shape(0)), list(layer.get_input_shape(1))
    kind = layer.get_type_name()
    if kind == "Convolution":
        return int(np.prod(output) * np.prod(weights[1:]))
    if kind == "GroupConvolution":
        return int(np.prod(output) * np.prod(weights[2:]))
    if kind == "MatMul":
        return int(np.prod(output) * list(layer.get_input_shape(0))[-1])
    # A transposed convolution multiplies each value of its input with the weights of its channel.
    each = weights[1:] if kind == "ConvolutionBackpropData" else weights[2:]
    return int(np.prod(list(layer.get_input_shape(0))) * np.prod(each))


def has_constant_weights(layer: Any) -> bool:
    """Tell whether the second input of a layer does not depend on the picture."""
    waiting, seen = [layer.input_value(1).get_node()], set()
    while waiting:
        node = waiting.pop()
        if node.get_type_name() == "Parameter":
            return False
        if node.get_name() not in seen:
            seen.add(node.get_name())
            waiting += [port.get_node() for port in node.input_values()]
    return True


def quantisers_before(layer: Any) -> list[Any]:
    """Return the quantisers of the activations that a layer multiplies, past operations that only move values."""
    ports = [0] if has_constant_weights(layer) else [0, 1]
    found, waiting = [], [layer.input_value(port).get_node() for port in ports]
    while waiting:
        node = waiting.pop()
        kind = node.get_type_name()
        if kind == QUANTISER:
            found.append(node)
        elif kind == "Concat":
            waiting += [port.get_node() for port in node.input_values()]
        elif kind in _MOVING:
            waiting.append(node.input_value(0).get_node())
    return found


def is_moving(node: Any) -> bool:
    """Tell whether an operation moves values without computing."""
    return node.get_type_name() in _MOVING


def remove_quantiser(quantiser: Any) -> None:
    """Connect what a quantiser feeds to what feeds it."""
    source = quantiser.input_value(0)
    for port in quantiser.output(0).get_target_inputs():
        port.replace_source_output(source)


def quantisers_of_the_answer(model: Any) -> list[Any]:
    """Return the quantisers between the last layers and the output."""
    found, waiting, seen = [], [result.input_value(0).get_node() for result in model.get_results()], set()
    while waiting:
        node = waiting.pop()
        kind = node.get_type_name()
        if node.get_name() in seen or kind in LAYERS:
            continue
        seen.add(node.get_name())
        if kind == QUANTISER:
            found.append(node)
        waiting += [port.get_node() for port in node.input_values()]
    return found
