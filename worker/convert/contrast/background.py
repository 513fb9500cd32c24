"""Estimate the background as a smooth colour field, fitted from the border inwards. Second step of `contrast`.

It works on the mean colours of n x n square cells.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial.legendre import legval
from openvino import opset15 as op

from worker.convert.contrast.ops import (
    Array,
    Node,
    box,
    median,
    planes,
    real,
    reshaped,
    squared_length,
    stacked,
    summed,
    whole,
)

CELL = 8
"""Side of a cell in pixels."""
DEGREE = 4
"""Total degree in x and y of the polynomial."""
STIFFNESS = (0.001, 0.1, 3.0, 10.0, 30.0)
"""Ridge on the terms of degree 0 to 4, in cells: high terms need the evidence of as many cells to take effect."""
STEPS = ((2, 10.0), (2, 1.0), (4, 0.3), (10, 0.3), (20, 0.3))
"""Re-weighted fits: the number of rings of cells used, from the border inwards, and a factor on STIFFNESS."""
RINGS = 2
"""Rings of cells, from the border inwards, that define the background."""
SPREAD = 2.0
"""Squared scale of the weights over the median squared error, which is 2.4 variances for three normal channels."""
FLOOR = 3.0
"""Delta E by which a cell of the background may differ even if the border is perfectly uniform."""
LOCAL_ROUNDS, LOCAL_RADIUS = 4, 2
"""Number of local corrections, and the radius in cells of the box filter that is applied twice."""
LOCAL_TRUST = 0.03
"""Mean weight of the neighbourhood at which half of a local correction is applied."""


@dataclass(frozen=True)
class Background:
    """The fitted background, per cell."""

    colour: Node
    """Expected colour `[1, 3, n, n]` in CIELAB."""
    weight: Node
    """Membership of the background `[1, 1, n, n]`, 0 to 1."""


def fit_background(cells: Node) -> Background:
    """Fit a polynomial of position to the cells that resemble the border, then apply local corrections.

    The fit is an iteratively re-weighted least squares with the weights of Geman and McClure, (s^2 / (s^2 + e^2))^2,
    which fall to zero for outliers (Black and Rangarajan 1996). It starts with the median colour of the outer rings and
    moves inwards. The scale s is derived from the median error on those rings, so a subject cut off by the border has
    little influence as long as it covers less than half of the border.

    Args:
        cells: mean colours `[1, 3, n, n]` in CIELAB.
    """
    n = cells.shape[3]
    terms, degrees = _terms(n)
    colour = reshaped(cells, 3, n * n)
    fitted = median(on_border(colour, n))
    for reach, factor in STEPS:
        weight, _ = _weights(colour - fitted, n)
        inside = real(_depth(n)[None] < reach)
        fitted = _least_squares(colour, weight * inside, terms, np.take(STIFFNESS, degrees) * factor)
    weight, spread = _weights(colour - fitted, n)
    start = Background(reshaped(fitted, 1, 3, n, n), reshaped(weight, 1, 1, n, n))
    return _corrected(cells, start, spread)


def on_border(rows: Node, n: int) -> Node:
    """Select the values `[K, M]` of the outer rings from `[K, n * n]`."""
    return op.gather(rows, whole(np.flatnonzero(_depth(n) < RINGS)), whole(1))


def _weights(error: Node, n: int) -> tuple[Node, Node]:
    """Compute Geman-McClure weights `[1, n * n]` and their squared scale `[1, 1]` from errors `[3, n * n]`."""
    squared = squared_length(error, 0)
    spread = median(on_border(squared, n)) * real(SPREAD) + real(FLOOR**2)
    return _geman_mcclure(squared, spread), spread


def _geman_mcclure(squared_error: Node, squared_scale: Node) -> Node:
    ratio = squared_scale / (squared_scale + squared_error)
    return ratio * ratio


def _least_squares(colour: Node, weight: Node, terms: Array, ridge: Array) -> Node:
    """Fit `[3, N]` by the normal equations (T W T' + diag(ridge)) b = T W y, with T [terms, N], W [N], y [3, N]."""
    count = len(terms)
    weighted = real(terms[:, None]) * weight
    normal = summed(weighted * real(terms[None]), 2) + real(np.diag(ridge))
    right = summed(weighted * reshaped(colour, 1, 3, -1), 2)
    solution = summed(reshaped(op.inverse(normal), count, count, 1) * reshaped(right, 1, count, 3), 1)
    return summed(reshaped(solution, count, 3, 1) * real(terms[:, None]), 0)


def _corrected(cells: Node, start: Background, spread: Node) -> Background:
    """Correct the fit by a normalised convolution (Knutsson and Westin 1993) of its error, weighted by membership.

    The correction follows shapes that no polynomial fits, such as the tip of a radial gradient. It fades out where no
    background is near, so that a subject does not become its own background.
    """
    rest, weight = cells - start.colour, start.weight
    for _ in range(LOCAL_ROUNDS):
        near = box(box(stacked([rest * weight, weight]), LOCAL_RADIUS), LOCAL_RADIUS)
        *sums, share = planes(near)
        correction = stacked(sums) / (share + real(LOCAL_TRUST))
        weight = _geman_mcclure(squared_length(rest - correction, 1), spread)
    return Background(start.colour + correction, weight)


def _terms(n: int) -> tuple[Array, list[int]]:
    """Return products of Legendre polynomials up to DEGREE on an n x n grid, `[terms, n * n]`, and their degrees.

    They are orthogonal, unlike powers of x and y, so the normal equations stay well conditioned in single precision.
    """
    centres = (np.arange(n) + 0.5) / n * 2 - 1
    line = [legval(centres, np.eye(DEGREE + 1)[k]) * np.sqrt(2 * k + 1) for k in range(DEGREE + 1)]
    pairs = [(i, j) for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    return np.array([np.outer(line[j], line[i]).ravel() for i, j in pairs]), [i + j for i, j in pairs]


def _depth(n: int) -> Array:
    """Return the number of cells between each cell of an n x n grid and the border, `[n * n]`; 0 on the outer ring."""
    index = np.arange(n)
    edge = np.minimum(index, n - 1 - index)
    depth: Array = np.minimum(edge[:, None], edge[None, :]).ravel()
    return depth
