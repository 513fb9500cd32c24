"""The exact rewrites of the network: their names, and their arithmetic on weights.

Every rewrite is exact in real arithmetic; only rounding remains (about 1e-5 in the logits). Each is enabled by name, so
the same code builds the plain graph (no rewrite), the optimised graph (`ALL`) and any combination. Weights are combined
in float64 and rounded once.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

BATCH_NORM_EPSILON = 1e-5


class Rewrite(StrEnum):
    """One exact rewrite, for `network.build(..., rewrites=...)`."""

    OUTPUT_CONV = "output-conv"
    """The last 1x1 convolution is folded into both of its inputs: one channel is upsampled instead of 96 or
    192."""
    INPUT_PATCH = "input-patch"
    """The two 3x3 convolutions of `ipt_blk1` become one 5x5; the outermost ring of pixels is computed as published."""
    OFFSETS = "offsets"
    """Offset and modulator convolutions of a deformable branch become one."""
    BATCH_NORM = "batch-norm"
    """Batch norms are folded into the convolution before them, including deformable convolutions."""
    POOLED_BRANCH = "pooled-branch"
    """The pooled branch, which is constant over the map, becomes a bias of the convolution that reads it."""
    BRANCH_SUM = "branch-sum"
    """The 1x1 convolution over the concatenated branches becomes a sum of one per branch, without concatenation."""
    SAME_SIZE = "same-size"
    """Resizes to the size that a map already has are dropped."""
    WINDOW_GATHER = "window-gather"
    """Padding, shift and window partition become one gather with constant indices, and their inverse another."""
    REAL_TOKENS = "real-tokens"
    """qkv and output projection run only on the image's own tokens; implies the gathers of `WINDOW_GATHER`."""


ALL: frozenset[Rewrite] = frozenset(Rewrite)
"""The default rewrites: measurements show that they help, one by one and together.

`WINDOW_GATHER` has no effect with `REAL_TOKENS`; it applies if `REAL_TOKENS` is left out.
"""

NONE: frozenset[Rewrite] = frozenset()
"""The network as published."""


def batch_norm_scale(gamma: Array, beta: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Return the scale and shift per channel that equal a batch norm at inference: `y = scale * x + shift`.

    Source: Ioffe and Szegedy, arXiv 1502.03167, algorithm 2.
    """
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)
    shift = beta - mean * scale
    return scale.astype(np.float32), shift.astype(np.float32)


def fold_scale(weight: Array, bias: Array | None, scale: Array, shift: Array) -> tuple[Array, Array]:
    """Return weights and bias of the convolution that equals `scale * conv(x) + shift`.

    Args:
        weight: `[out, in, kh, kw]`.
        bias: `[out]`, or None for a convolution without bias.
        scale: `[out]`.
        shift: `[out]`.
    """
    folded = weight * scale[:, None, None, None]
    moved = shift if bias is None else bias * scale + shift
    return folded.astype(np.float32), moved.astype(np.float32)


def then_pointwise(weight: Array, bias: Array, pointwise: Array) -> tuple[Array, Array]:
    """Return weights and bias that equal a convolution followed by a 1x1 convolution without bias.

    Args:
        weight: `[mid, in, kh, kw]`.
        bias: `[mid]`.
        pointwise: `[out, mid, 1, 1]`.

    Returns:
        `[out, in, kh, kw]` and `[out]`.
    """
    mix = pointwise[:, :, 0, 0].astype(np.float64)
    joined = np.einsum("om,mihw->oihw", mix, weight.astype(np.float64))
    return joined.astype(np.float32), (mix @ bias).astype(np.float32)


def compose(first: Array, first_bias: Array, second: Array, second_bias: Array) -> tuple[Array, Array]:
    """Return weights and bias that equal two consecutive convolutions without padding between them.

    The composed kernel is the full convolution of the two kernels, summed over the channels between them. If the second
    convolution pads with zeros, the result holds only where it reads no padding.

    Args:
        first: `[mid, in, a, a]`.
        first_bias: `[mid]`.
        second: `[out, mid, b, b]`.
        second_bias: `[out]`.

    Returns:
        `[out, in, a + b - 1, a + b - 1]` and `[out]`.
    """
    outputs, _, rows, cols = second.shape
    _, inputs, height, width = first.shape
    joined = np.zeros((outputs, inputs, rows + height - 1, cols + width - 1))
    one, two = first.astype(np.float64), second.astype(np.float64)
    for row in range(rows):
        for col in range(cols):
            joined[:, :, row : row + height, col : col + width] += np.einsum("om,mihw->oihw", two[:, :, row, col], one)
    bias = second_bias + two.sum((2, 3)) @ first_bias
    return joined.astype(np.float32), bias.astype(np.float32)
