"""Distance of each pixel from the background: the residual without noise and shadow, in units of the border's spread.

Third step of `contrast`. Colours are lists of three planes `[1, 1, R, R]` in CIELAB.
"""

from __future__ import annotations

import numpy as np
from openvino import opset15 as op

from worker.convert.contrast.background import CELL, Background, on_border
from worker.convert.contrast.ops import (
    Node,
    box,
    dot,
    median,
    planes,
    pooled,
    real,
    reshaped,
    stacked,
    summed,
    total,
    whole,
)

WINDOW_RADIUS, BLEND_RADIUS = 3, 2
"""Radius in pixels of the denoising window, and of the window that blends the results."""
NOISE_MARGIN = 1.6
"""Factor on the median noise, which half the windows of pure noise exceed; without it they would count as texture."""
SHADOW = 0.13
"""Darkening of cube-root light that is half removed as shadow: 1 - 0.87^3 = 34 % less light."""
SENSOR = 2.5
"""Delta E added to the border's spread; it is the unit of distance on a perfectly uniform background."""


def denoised(residual: list[Node]) -> list[Node]:
    """Apply a local Wiener filter (Lee 1980) with one gain for all channels, blended as in the guided filter.

    In each window gain = max(variance - noise, 0) / variance: edges are kept, and uniform areas become their mean. Gain
    and offset are averaged over the windows that cover a pixel (He, Sun and Tang 2010), which avoids block artefacts.
    """
    stack = stacked([*residual, dot(residual, residual)])
    noise = _noise(pooled(stack, CELL)) * real(NOISE_MARGIN)
    *means, mean_square = planes(box(stack, WINDOW_RADIUS))
    variance = op.relu(mean_square - dot(means, means))
    gain = op.relu(variance - noise) / (variance + real(1e-3))
    offsets = [mean * (real(1) - gain) for mean in means]
    gain, *offsets = planes(box(stacked([gain, *offsets]), BLEND_RADIUS))
    return [value * gain + offset for value, offset in zip(residual, offsets, strict=True)]


def _noise(cells: Node) -> Node:
    """Compute the median variance within a cell of the border `[1, 1, 1, 1]`, from cell means `[1, 4, n, n]`.

    Args:
        cells: mean colours, and mean squared length of the residual.
    """
    n = cells.shape[3]
    *means, mean_square = planes(cells)
    variance = op.relu(mean_square - dot(means, means))
    return reshaped(median(on_border(reshaped(variance, 1, n * n), n)), 1, 1, 1, 1)


def without_shadow(residual: list[Node], expected: list[Node]) -> list[Node]:
    """Reduce the residual where it is only a darker shade of the background.

    Less light multiplies X, Y and Z by k, and therefore the vector (L* + 16, a*, b*) by the cube root of k: a shadow
    moves a colour along that vector. A step t against it, in units of its length, is reduced by the share
    d^2 / (t^2 + d^2) with d = SHADOW: slight darkening is removed, strong darkening is kept.
    """
    light, *chroma = expected
    vector = [light + real(16), *chroma]
    step = op.minimum(dot(residual, vector) / (dot(vector, vector) + real(1)), real(0))
    lost = step * real(SHADOW**2) / (step * step + real(SHADOW**2))
    return [value - axis * lost for value, axis in zip(residual, vector, strict=True)]


def mahalanobis(residual: list[Node], background: Background) -> Node:
    """Compute sqrt(r' (C + SENSOR^2 I)^-1 r), `[1, 1, R, R]`; C holds the second moments of r over the background."""
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    products = [residual[i] * residual[j] for i, j in pairs]
    share = background.weight / (summed(background.weight, 1, 2, 3, keep=True) + real(1e-6))
    moments = summed(pooled(stacked(products), CELL) * share, 0, 2, 3)
    square = reshaped(op.gather(moments, whole([0, 1, 2, 1, 3, 4, 2, 4, 5]), whole(0)), 3, 3)
    inverse = reshaped(op.inverse(square + real(np.eye(3) * SENSOR**2)), 9, 1, 1, 1)
    # The matrix is symmetric, so entries off the diagonal count twice.
    factors = [op.gather(inverse, whole([3 * i + j]), whole(0)) * real(1 if i == j else 2) for i, j in pairs]
    squared = total([product * factor for product, factor in zip(products, factors, strict=True)])
    return op.sqrt(op.relu(squared))
