"""What the picture would be without its subject: a smooth colour field, fitted from the border inwards.

Works on the mean colours of square cells, n x n of them. Second step of `contrast`.
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
"""Ridge on the terms of degree 0 to 4, in cells: high terms need the evidence of as many cells before they bend."""
STEPS = ((2, 10.0), (2, 1.0), (4, 0.3), (10, 0.3), (20, 0.3))
"""Re-weighted fits: how many rings of cells count, from the border inwards, and a factor on STIFFNESS."""
RINGS = 2
"""Rings of cells, from the border inwards, that say what background is."""
SPREAD = 2.0
"""Squared scale of the weights over the median squared error, which for three normal channels is 2.4 variances."""
FLOOR = 3.0
"""Delta E that a cell of the background may be off even if the border is perfectly even."""
LOCAL_ROUNDS, LOCAL_RADIUS = 4, 2
"""Local corrections, and the radius in cells of the box that is applied twice."""
LOCAL_TRUST = 0.03
"""Mean weight of the neighbourhood at which a local correction is half believed."""


@dataclass(frozen=True)
class Background:
    """Per cell: expected colour [1,3,n,n] in CIELAB, and membership of the background [1,1,n,n] in 0..1."""

    colour: Node
    weight: Node


def fit_background(cells: Node) -> Background:
    """Polynomial of position through the cells that look like the border, then local corrections.

    Iteratively re-weighted least squares with the weights of Geman and McClure, (s^2 / (s^2 + e^2))^2, which fall back
    to zero for outliers (Black and Rangarajan 1996). It begins with the median colour of the outer rings and moves
    inwards. The scale s comes from the median error on those rings, so that a subject that the border cuts counts for
    little while it covers less than half of it.

    Args:
        cells: mean colours [1,3,n,n] in CIELAB.
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
    """The values [K, M] of the outer rings, of [K, n * n]."""
    return op.gather(rows, whole(np.flatnonzero(_depth(n) < RINGS)), whole(1))


def _weights(error: Node, n: int) -> tuple[Node, Node]:
    """Of errors [3, n * n]: Geman-McClure weights [1, n * n] and the squared scale [1, 1]."""
    squared = squared_length(error, 0)
    spread = median(on_border(squared, n)) * real(SPREAD) + real(FLOOR**2)
    return _geman_mcclure(squared, spread), spread


def _geman_mcclure(squared_error: Node, squared_scale: Node) -> Node:
    ratio = squared_scale / (squared_scale + squared_error)
    return ratio * ratio


def _least_squares(colour: Node, weight: Node, terms: Array, ridge: Array) -> Node:
    """Fitted [3, N] by the normal equations (T W T' + diag(ridge)) b = T W y, for T [terms, N], W [N], y [3, N]."""
    count = len(terms)
    weighted = real(terms[:, None]) * weight
    normal = summed(weighted * real(terms[None]), 2) + real(np.diag(ridge))
    right = summed(weighted * reshaped(colour, 1, 3, -1), 2)
    solution = summed(reshaped(op.inverse(normal), count, count, 1) * reshaped(right, 1, count, 3), 1)
    return summed(reshaped(solution, count, 3, 1) * real(terms[:, None]), 0)


def _corrected(cells: Node, start: Background, spread: Node) -> Background:
    """Normalised convolution (Knutsson and Westin 1993) of what the polynomial left over, weighted by membership.

    It follows what no polynomial does, such as the tip of a radial gradient. Where no background is near it fades out,
    so that a subject does not become its own background.
    """
    rest, weight = cells - start.colour, start.weight
    for _ in range(LOCAL_ROUNDS):
        near = box(box(stacked([rest * weight, weight]), LOCAL_RADIUS), LOCAL_RADIUS)
        *sums, share = planes(near)
        correction = stacked(sums) / (share + real(LOCAL_TRUST))
        weight = _geman_mcclure(squared_length(rest - correction, 1), spread)
    return Background(start.colour + correction, weight)


def _terms(n: int) -> tuple[Array, list[int]]:
    """Products of Legendre polynomials up to DEGREE on an n x n grid, [terms, n * n], and their degrees.

    Orthogonal, unlike powers of x and y: the normal equations stay well conditioned in single precision.
    """
    centres = (np.arange(n) + 0.5) / n * 2 - 1
    line = [legval(centres, np.eye(DEGREE + 1)[k]) * np.sqrt(2 * k + 1) for k in range(DEGREE + 1)]
    pairs = [(i, j) for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i)]
    return np.array([np.outer(line[j], line[i]).ravel() for i, j in pairs]), [i + j for i, j in pairs]


def _depth(n: int) -> Array:
    """Cells between each cell of an n x n grid and the border, [n * n]; 0 on the outermost ring."""
    index = np.arange(n)
    edge = np.minimum(index, n - 1 - index)
    depth: Array = np.minimum(edge[:, None], edge[None, :]).ravel()
    return depth
