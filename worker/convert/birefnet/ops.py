"""The OpenVINO operations that the network is made of, and the view of the weights that its parts pass down.

Maps are `[1, channels, height, width]` and tokens `[1, count, channels]`; all are static and float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from openvino import opset13 as opset

from worker.convert.birefnet.layout import Backbone
from worker.convert.birefnet.rewrites import BATCH_NORM_EPSILON, Array, Rewrite, batch_norm_scale, fold_scale

Node = Any
"""An OpenVINO node with one output."""

LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Scope:
    """The weights below one prefix of the state dict, the enabled rewrites, and the backbone."""

    arrays: Mapping[str, Array]
    rewrites: frozenset[Rewrite]
    backbone: Backbone
    prefix: str = ""

    def at(self, name: str) -> Scope:
        """Return the scope one or more levels down."""
        return Scope(self.arrays, self.rewrites, self.backbone, f"{self.prefix}{name}.")

    def array(self, name: str) -> Array:
        """Return one array by its name below this scope."""
        return self.arrays[self.prefix + name]

    def conv(self, name: str) -> tuple[Array, Array]:
        """Return the weights and bias of a layer."""
        return self.array(f"{name}.weight"), self.array(f"{name}.bias")

    def norm(self, name: str) -> tuple[Array, Array]:
        """Return the scale and shift that equal a batch norm."""
        return batch_norm_scale(*self.statistics(name))

    def statistics(self, name: str) -> tuple[Array, Array, Array, Array]:
        """Return gamma, beta, mean and variance of a batch norm, as stored."""
        gamma, beta = self.conv(name)
        return gamma, beta, self.array(f"{name}.running_mean"), self.array(f"{name}.running_var")

    def uses(self, rewrite: Rewrite) -> bool:
        """Return whether a rewrite is enabled."""
        return rewrite in self.rewrites


def constant(values: npt.NDArray[Any]) -> Node:
    """Return a constant of the array's type."""
    return opset.constant(np.ascontiguousarray(values))


def integers(values: Sequence[int]) -> Node:
    """Return a constant int64 vector, for shapes, axes and indices."""
    return opset.constant(np.asarray(values, np.int64))


def integer(value: int) -> Node:
    """Return a constant int64 scalar, for an axis."""
    return opset.constant(np.asarray(value, np.int64))


def reshape(node: Node, *shape: int) -> Node:
    """Reshape to a static shape; one dimension may be -1."""
    return opset.reshape(node, integers(shape), special_zero=False)


def transpose(node: Node, *order: int) -> Node:
    """Permute the dimensions."""
    return opset.transpose(node, integers(order))


def concat(nodes: Sequence[Node], axis: int = 1) -> Node:
    """Concatenate nodes; a single node is returned unchanged."""
    return nodes[0] if len(nodes) == 1 else opset.concat(list(nodes), axis)


def crop(node: Node, begin: Sequence[int], end: Sequence[int], axes: Sequence[int]) -> Node:
    """Slice `begin:end` along each of the axes."""
    return opset.slice(node, integers(begin), integers(end), integers([1] * len(axes)), integers(axes))


def conv(
    x: Node,
    weight: Array,
    bias: Array | None,
    *,
    stride: int = 1,
    before: tuple[int, int] | None = None,
    after: tuple[int, int] | None = None,
) -> Node:
    """Add a convolution over a map.

    Args:
        x: `[1, in, height, width]`.
        weight: `[out, in, k, k]`.
        bias: `[out]` or None.
        stride: Step on both axes.
        before: Zero padding at top and left; default `k // 2`.
        after: Zero padding at bottom and right; default `before`.
    """
    half = weight.shape[-1] // 2
    before = (half, half) if before is None else before
    after = before if after is None else after
    y = opset.convolution(x, constant(weight), [stride, stride], list(before), list(after), [1, 1])
    return y if bias is None else opset.add(y, constant(bias.reshape(1, -1, 1, 1)))


def normed_conv(x: Node, scope: Scope, conv_name: str, norm_name: str) -> Node:
    """Add a convolution with bias and its batch norm; with `BATCH_NORM` they are one operation."""
    weight, bias = scope.conv(conv_name)
    if scope.uses(Rewrite.BATCH_NORM):
        return conv(x, *fold_scale(weight, bias, *scope.norm(norm_name)))
    return batch_norm(conv(x, weight, bias), scope, norm_name)


def batch_norm(x: Node, scope: Scope, name: str) -> Node:
    """Add a batch norm as a separate operation."""
    gamma, beta, mean, variance = (constant(values) for values in scope.statistics(name))
    return opset.batch_norm_inference(x, gamma, beta, mean, variance, BATCH_NORM_EPSILON)


def layer_norm(x: Node, scope: Scope, name: str) -> Node:
    """Add a layer norm over the last axis."""
    gamma, beta = scope.conv(name)
    y = opset.mvn(x, integers([-1]), True, LAYER_NORM_EPSILON, "inside_sqrt")
    return opset.add(opset.multiply(y, constant(gamma)), constant(beta))


def linear(x: Node, weight: Array, bias: Array | None = None) -> Node:
    """Add `x @ weight.T + bias`, with weights `[out, in]`."""
    y = opset.matmul(x, constant(weight), False, True)
    return y if bias is None else opset.add(y, constant(bias))


def resize(x: Node, height: int, width: int) -> Node:
    """Add a bilinear resize with aligned corners."""
    return opset.interpolate(
        x,
        integers([height, width]),
        "linear_onnx",
        "sizes",
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        "align_corners",
        axes=integers([2, 3]),
    )


def named(node: Node, name: str) -> Node:
    """Give the node's output a tensor name, for `model.add_outputs(name)`, and return the node."""
    node.output(0).get_tensor().set_names({name})
    return node


def height_width(x: Node) -> tuple[int, int]:
    """Return height and width of a map."""
    shape = list(x.output(0).get_shape())
    return int(shape[2]), int(shape[3])
