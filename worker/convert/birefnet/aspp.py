"""The decoder block of BiRefNet, with its deformable ASPP.

Sources: arXiv 2401.03407; Zhu et al., "Deformable ConvNets v2", arXiv 1811.11168, for the modulated deformable
convolution; Chen et al., arXiv 1706.05587, for the parallel branches and the pooled branch.
"""

from __future__ import annotations

import numpy as np
from openvino import opset13 as opset

from worker.convert.birefnet.layout import BRANCH, BRANCHES
from worker.convert.birefnet.ops import (
    Node,
    Scope,
    batch_norm,
    concat,
    constant,
    conv,
    height_width,
    integer,
    integers,
    normed_conv,
)
from worker.convert.birefnet.rewrites import Array, Rewrite, fold_scale


def decoder_block(x: Node, scope: Scope) -> Node:
    """Add one decoder block: `[1, in, h, w]` to `[1, out, h, w]`."""
    return normed_conv(inner_features(x, scope), scope, "conv_out", "bn_out")


def inner_features(x: Node, scope: Scope) -> Node:
    """Add a decoder block without its last convolution: `[1, in, h, w]` to `[1, 64, h, w]`, not negative."""
    return _aspp(opset.relu(normed_conv(x, scope, "conv_in", "bn_in")), scope.at("dec_att"))


def _aspp(x: Node, scope: Scope) -> Node:
    branches = [_branch(x, scope.at(name), kernel) for name, kernel in BRANCHES]
    weight = scope.array("conv1.weight")
    if scope.uses(Rewrite.POOLED_BRANCH):
        pooled = conv(_pooled(x, scope), weight[:, BRANCH * len(BRANCHES) :], None)
        weight = weight[:, : BRANCH * len(BRANCHES)]
    else:
        branches.append(opset.broadcast(_pooled(x, scope), integers([1, BRANCH, *height_width(x)])))
        pooled = None
    return opset.relu(_mix(branches, weight, pooled, scope))


def _mix(branches: list[Node], weight: Array, pooled: Node | None, scope: Scope) -> Node:
    """Add the 1x1 convolution over all branches and its batch norm; `pooled` is added before the norm."""
    bias = None
    folds = scope.uses(Rewrite.BATCH_NORM)
    if folds:
        scale, shift = scope.norm("bn1")
        weight, bias = fold_scale(weight, None, scale, shift)
        if pooled is not None:
            pooled = opset.multiply(pooled, constant(scale.reshape(1, -1, 1, 1)))
            pooled, bias = opset.add(pooled, constant(bias.reshape(1, -1, 1, 1))), None
    if scope.uses(Rewrite.BRANCH_SUM):
        y = _sum_of_convs(branches, weight, bias)
    else:
        y = conv(concat(branches), weight, bias)
    if pooled is not None:
        y = opset.add(y, pooled)
    return y if folds else batch_norm(y, scope, "bn1")


def _sum_of_convs(branches: list[Node], weight: Array, bias: Array | None) -> Node:
    y = None
    for index, branch in enumerate(branches):
        part = conv(branch, weight[:, index * BRANCH : (index + 1) * BRANCH], bias if index == 0 else None)
        y = part if y is None else opset.add(y, part)
    return y


def _branch(x: Node, scope: Scope, kernel: int) -> Node:
    """Add modulated deformable convolution, batch norm and ReLU: `[1, 64, h, w]` to `[1, 256, h, w]`.

    Offsets are (dy, dx) per tap, with taps in row-major order. The modulator is `2 * sigmoid`. Samples outside the map
    are zero.
    """
    half = kernel // 2
    offsets, modulator = _offsets(x, scope.at("atrous_conv"), kernel)
    modulator = opset.multiply(opset.sigmoid(modulator), constant(np.full(1, 2, np.float32)))
    weight = scope.array("atrous_conv.regular_conv.weight")
    folds = scope.uses(Rewrite.BATCH_NORM)
    bias = None
    if folds:
        weight, bias = fold_scale(weight, None, *scope.norm("bn"))
    y = opset.deformable_convolution(
        x,
        offsets,
        constant(weight),
        [1, 1],
        [half, half],
        [half, half],
        [1, 1],
        modulator,
        bilinear_interpolation_pad=True,
    )
    y = batch_norm(y, scope, "bn") if bias is None else opset.add(y, constant(bias.reshape(1, -1, 1, 1)))
    return opset.relu(y)


def _offsets(x: Node, scope: Scope, kernel: int) -> tuple[Node, Node]:
    """Return offsets `[1, 2 * k * k, h, w]` and the modulator before its sigmoid, `[1, k * k, h, w]`."""
    offset, modulator = scope.conv("offset_conv"), scope.conv("modulator_conv")
    if not scope.uses(Rewrite.OFFSETS):
        return conv(x, *offset), conv(x, *modulator)
    both = (np.concatenate(pair) for pair in zip(offset, modulator, strict=True))
    parts = opset.variadic_split(conv(x, *both), integer(1), integers([2 * kernel**2, kernel**2]))
    return parts.output(0), parts.output(1)


def _pooled(x: Node, scope: Scope) -> Node:
    """Return the pooled branch before it is broadcast over the map: `[1, 256, 1, 1]`."""
    mean = opset.reduce_mean(x, integers([2, 3]), True)
    weight = scope.array("global_avg_pool.1.weight")
    if scope.uses(Rewrite.BATCH_NORM):
        y = conv(mean, *fold_scale(weight, None, *scope.norm("global_avg_pool.2")))
    else:
        y = batch_norm(conv(mean, weight, None), scope, "global_avg_pool.2")
    return opset.relu(y)
