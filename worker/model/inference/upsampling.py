"""Replace the bilinear upsampling of maps with one channel while a model is loaded.

    Interpolate [1,1,h,w] -> [1,1,H,W]   becomes   Pad (edge), ConvolutionBackpropData   H = k h, k even, half pixels
                                         or        A · map · Bᵀ                          any other bilinear upsampling

Networks for masks end with such a map. OpenVINO's Interpolate of one channel is slow: 20 ms for 1024 x 1024 pixels on a
core of Zen 4, the transposed convolution takes 3.5 ms (`findings/openvino-bilinear-upsampling-of-one-channel.sh`).
Both forms compute the same sums; results differ by rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.model.inference.runtime import ov

_MODES = ("linear", "linear_onnx")
_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel")
"""Both are the same where the output has more than one pixel per side (ONNX operator Resize)."""
_ALIGN_CORNERS = "align_corners"

_LARGEST_FACTOR = 4
"""Of the transposed convolution, which multiplies with 2 k x 2 k taps; above it, the products are smaller."""
_MOST_PER_PIXEL = 700
"""Multiplications per output pixel up to which the products are faster: a core makes about 50 per ns, and Interpolate
takes 20 ns per pixel."""
_SMALLEST = 64 * 64
"""Output pixels below which nothing is gained."""


@dataclass(frozen=True)
class _Map:
    """A bilinear upsampling of one channel."""

    value: Any
    size: tuple[int, int]
    output_size: tuple[int, int]
    align_corners: bool


def replace(model: Any) -> int:
    """Replace every bilinear upsampling of one channel in `model`; return their number.

    Args:
        model: changed in place; others than static shapes are left as they are.
    """
    replaced = 0
    for node in model.get_ordered_ops():
        found = _upsampling(node) if node.get_type_name() == "Interpolate" else None
        result = None if found is None else _result(found)
        if result is None:
            continue
        result.set_friendly_name(node.get_friendly_name())
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(result.output(0))
        replaced += 1
    return replaced


def _upsampling(node: Any) -> _Map | None:
    value, output = node.input_value(0), node.output(0)
    given = node.get_attributes()
    static = value.get_partial_shape().is_static and output.get_partial_shape().is_static
    shapes = (tuple(value.get_shape()), tuple(output.get_shape())) if static else ((), ())
    if not static or any(len(shape) != 4 or shape[:2] != (1, 1) for shape in shapes):  # noqa: PLR2004  NCHW
        return None
    kind = given["coordinate_transformation_mode"]
    padded = any(given["pads_begin"]) or any(given["pads_end"])
    if given["mode"] not in _MODES or padded or kind not in (*_HALF_PIXEL, _ALIGN_CORNERS):
        return None
    size, output_size = shapes[0][2:], shapes[1][2:]
    if any(large <= small or small == 1 for small, large in zip(size, output_size, strict=True)):
        return None
    return _Map(value, (size[0], size[1]), (output_size[0], output_size[1]), kind == _ALIGN_CORNERS)


def _result(found: _Map) -> Any | None:
    if math.prod(found.output_size) < _SMALLEST:
        return None
    factors = [large // small for small, large in zip(found.size, found.output_size, strict=True)]
    whole = all(large % small == 0 for small, large in zip(found.size, found.output_size, strict=True))
    even = all(factor % 2 == 0 and factor <= _LARGEST_FACTOR for factor in factors)
    if whole and even and not found.align_corners:
        return _as_transposed_convolution(found.value, factors)
    (height, width), output_height = found.size, found.output_size[0]
    per_pixel = width + height * width * output_height / math.prod(found.output_size)
    return _as_products(found) if per_pixel <= _MOST_PER_PIXEL else None


def _as_transposed_convolution(value: Any, factors: list[int]) -> Any:
    """Upsample by even factors: each pixel adds to 2 k pixels per axis, whose weights fall linearly from its centre.

    One pixel is repeated at each border, as bilinear upsampling does; what it adds outside is cut off.
    """
    ops, kind = ov.opset13, value.get_element_type()
    border = np.array([0, 0, 1, 1], np.int64)
    padded = ops.pad(value, ops.constant(border), ops.constant(border), "edge")
    rows, columns = (1 - np.abs(np.arange(2 * k) - k + 0.5) / k for k in factors)
    taps = ops.constant(np.outer(rows, columns)[None, None].astype(np.float32), kind)
    cut = [3 * k // 2 for k in factors]
    return ops.convolution_backprop_data(padded, taps, factors, pads_begin=cut, pads_end=cut)


def _as_products(found: _Map) -> Any:
    ops, kind = ov.opset13, found.value.get_element_type()
    rows, columns = (
        ops.constant(_weights(small, large, align_corners=found.align_corners)[None, None], kind)
        for small, large in zip(found.size, found.output_size, strict=True)
    )
    return ops.matmul(rows, ops.matmul(found.value, columns, False, True), False, False)


def _weights(small: int, large: int, *, align_corners: bool) -> npt.NDArray[np.float32]:
    """Return the weights `[large, small]` of linear upsampling along one axis."""
    positions = np.arange(large)
    at = positions * (small - 1) / (large - 1) if align_corners else (positions + 0.5) * small / large - 0.5
    at = np.clip(at, 0, small - 1)
    lower = np.minimum(at.astype(int), small - 2)
    weights = np.zeros((large, small), np.float32)
    weights[positions, lower] = 1 - (at - lower)
    weights[positions, lower + 1] = at - lower
    return weights
