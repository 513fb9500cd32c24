"""Convert distance to a soft mask: choose a threshold per picture, and fill small holes. Last step of `contrast`."""

from __future__ import annotations

import numpy as np
from openvino import opset15 as op

from worker.convert.contrast.ops import Node, averaged, box, dilated, enlarged, pooled, real, reshaped, whole

THRESHOLDS = np.expm1(np.linspace(np.log1p(3.0), np.log1p(8.0), 32))
"""Candidate distances between background and subject, in standard deviations of the border."""
SLOPE = 1.5
"""Increase of membership per distance of one threshold."""
COARSE = 4
"""Side in pixels of the cells in which holes are detected."""
FLOOD_STEPS = 16
"""Cells that the flood extends around corners."""
HOLE_RADIUS = 5
"""A hole stays open if a square of 2 x 5 + 1 cells fits into it, a seventh of the picture's side at R = 320."""
REGROWTH_STEPS = 4
"""Steps of HOLE_RADIUS by which such a square grows back to the whole hole."""


def membership(distance: Node) -> Node:
    """Convert distance to membership 0..1, with 0.5 at the threshold; an edge spans about two pixels."""
    return box(op.clamp((distance / _threshold(distance) - real(1)) * real(SLOPE) + real(0.5), 0.0, 1.0), 1)


def _threshold(distance: Node) -> Node:
    """Choose the one of THRESHOLDS with the largest between-class variance (Otsu 1979) of log(1 + distance).

    The threshold is bounded on both sides, so that a picture without a subject has no foreground and a very bright
    subject does not hide others.
    """
    value = op.log(reshaped(pooled(distance, COARSE), 1, -1) + real(1))
    above = op.convert(op.greater(value, real(np.log1p(THRESHOLDS)[:, None])), "f32")
    share = averaged(above, 1)
    gap = averaged(value, 1) * share - averaged(above * value, 1)
    between = gap * gap / (share * (real(1) - share) + real(1e-4))
    best = op.topk(between, whole(1), 0, "max", "value").output(1)
    return reshaped(op.gather(real(THRESHOLDS), best, whole(0)), 1, 1, 1, 1)


def filled(mask: Node) -> Node:
    """Fill holes that are not connected to the border, except wide ones, through which the background is visible."""
    solid = op.convert(op.greater(pooled(mask, COARSE), real(0.5)), "f32")
    free = real(1) - solid
    seen = _seen_from_border(solid)
    for _ in range(FLOOD_STEPS):
        seen = op.minimum(dilated(seen, 1), free)
    hole = free - seen
    wide = real(1) - dilated(real(1) - hole, HOLE_RADIUS)
    for _ in range(REGROWTH_STEPS):
        wide = op.minimum(dilated(wide, HOLE_RADIUS), hole)
    return op.maximum(mask, enlarged(dilated(hole - wide, 1), COARSE))


def _seen_from_border(solid: Node) -> Node:
    """Return 1 for cells with no solid cell between them and the border in a direction: the flood's long first step."""
    up, down, left, right = (
        op.cum_sum(solid, whole(axis), False, reverse) for axis in (2, 3) for reverse in (False, True)
    )
    return op.relu(real(1) - op.minimum(op.minimum(up, down), op.minimum(left, right)))
