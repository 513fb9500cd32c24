"""Run the network of an ONNX file in PyTorch, so that both have the same weights. Imports nothing of this package.

Knows the operators of U²-Net, IS-Net and other convolutional networks. Shapes are those that ONNX infers for the fixed
input, so nothing is computed for them.

Operators: https://onnx.ai/onnx/operators (opset 11 and later).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.version_converter

# By name, because PyTorch is not a dependency and type checks must pass without it.
torch: Any = importlib.import_module("torch")
F: Any = torch.nn.functional

Tensor = Any
Step = Callable[[dict[str, Tensor]], Tensor]

_IMAGE = 1
"""Pictures per call."""
_OPSET = 13
"""In older operator sets, ONNX does not follow sizes through Unsqueeze."""


def load(path: str, size: tuple[int, int], output: str) -> Callable[[Tensor], Tensor]:
    """Return the network as a function of a tensor f32 `[1, 3, H, W]`.

    Args:
        path: the ONNX file.
        size: height and width in pixels.
        output: name of the output to compute; empty for the first.

    Raises:
        ValueError: an operator, or a form of one, is not known here; the shape of a resized map cannot be inferred.
    """
    model = onnx.load(path)
    names = {tensor.name for tensor in model.graph.initializer}
    (image,) = (entry for entry in model.graph.input if entry.name not in names)
    for dimension, value in zip(image.type.tensor_type.shape.dim, (_IMAGE, 3, *size), strict=True):
        dimension.dim_value = value
    if max(entry.version for entry in model.opset_import) < _OPSET:
        model = onnx.version_converter.convert_version(model, _OPSET)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {
        entry.name: [dimension.dim_value for dimension in entry.type.tensor_type.shape.dim]
        for entry in (*model.graph.value_info, *model.graph.output)
    }
    constants = {tensor.name: _tensor(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = _tensor(node.attribute[0].t)
    result = output or model.graph.output[0].name
    steps = [(node.output[0], _step(node, constants, shapes)) for node in _needed(model.graph, result, constants)]

    def forward(values: Tensor) -> Tensor:
        found = {image.name: values}
        for name, step in steps:
            found[name] = step(found)
        return found[result]

    return forward


def _needed(graph: Any, result: str, constants: dict[str, Tensor]) -> list[Any]:
    """Return the nodes that the output depends on, in order; the sizes of resized maps are known without them."""
    wanted, needed = {result}, []
    for node in reversed(graph.node):
        if node.output[0] in wanted and node.output[0] not in constants:
            needed.append(node)
            wanted.update(node.input[:1] if node.op_type == "Resize" else node.input)
    return needed[::-1]


def _tensor(tensor: Any) -> Tensor:
    values = onnx.numpy_helper.to_array(tensor)
    return torch.from_numpy(np.array(values, np.float32) if values.dtype == np.float16 else np.array(values))


def _step(node: Any, constants: dict[str, Tensor], shapes: dict[str, list[int]]) -> Step:
    """Return a node as a function of all tensors so far."""
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    known = {name: constants[name] for name in node.input if name in constants}

    def value(found: dict[str, Tensor], place: int) -> Tensor | None:
        name = node.input[place] if place < len(node.input) else ""
        return known.get(name, found.get(name))

    if node.op_type in _ELEMENTWISE:
        function = _ELEMENTWISE[node.op_type]
        return lambda found: function(*(value(found, place) for place in range(len(node.input))))
    if node.op_type == "Concat":
        return lambda found: torch.cat([value(found, place) for place in range(len(node.input))], given["axis"])
    if node.op_type == "Conv":
        options = {
            "stride": given.get("strides", 1),
            "padding": _padding(node, given),
            "dilation": given.get("dilations", 1),
            "groups": given.get("group", 1),
        }
        return lambda found: F.conv2d(value(found, 0), value(found, 1), value(found, 2), **options)
    if node.op_type == "MaxPool":
        kernel, stride = given["kernel_shape"], given.get("strides", 1)
        padding, up = _padding(node, given), bool(given.get("ceil_mode", 0))
        return lambda found: F.max_pool2d(value(found, 0), kernel, stride, padding, ceil_mode=up)
    if node.op_type == "Resize":
        size = shapes.get(node.output[0], [])[2:]
        kind = given.get("coordinate_transformation_mode", b"half_pixel")
        if given.get("mode") != b"linear" or kind not in _CORNERS or not all(size) or not size:
            raise ValueError(f"{node.name}: only linear Resize to a known size is computed, not {given} to {size}")
        return lambda found: F.interpolate(value(found, 0), size, mode="bilinear", align_corners=_CORNERS[kind])
    raise ValueError(f"{node.name}: the operator {node.op_type} is not known here")


_CORNERS = {b"half_pixel": False, b"pytorch_half_pixel": False, b"align_corners": True}

_ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add,
    "Cast": lambda values: values,  # f16 files are computed in f32, as ONNX Runtime does on a CPU
    "Identity": lambda values: values,
    "Mul": torch.mul,
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
}


def _padding(node: Any, given: dict[str, Any]) -> list[int]:
    pads = given.get("pads", [0, 0, 0, 0])
    if pads[:2] != pads[2:] or given.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ValueError(f"{node.name}: only the same padding at both ends is computed, not {given}")
    return list(pads[:2])
