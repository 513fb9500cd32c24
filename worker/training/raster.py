"""A rasteriser in NumPy: which triangle is seen at each pixel, and where on it.

Triangles are grouped by the size of their bounding boxes, so that one call of NumPy tests many small triangles at all
pixels of their boxes. A pixel keeps the nearest triangle: depth and index are packed into one integer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_INDEX_BITS = 24
_DEPTH_STEPS = 1 << 36
_FAR = np.int64((1 << 62) - 1)
_TINY = 1e-12
_ON_EDGE = 1e-9
"""Tolerance by which a point on the edge of two triangles belongs to both, whatever the rounding."""
_BATCH = 2_000_000
"""Pixels tested in one call."""


@dataclass(frozen=True)
class Seen:
    """Where a triangle is seen."""

    rows: Ints
    columns: Ints
    """`[k]` each."""
    faces: Ints
    """`[k]`: index of the triangle."""
    weights: Floats
    """`[k, 3]`: barycentric coordinates on the screen."""


def visible(corners: Floats, height: int, width: int) -> Seen:
    """Find the nearest triangle at the centre of each pixel.

    Args:
        corners: `[m, 3, 3]`: x to the right and y downwards in pixels, and depth; smaller depths are nearer. Depth must
            be affine on the screen: -1/z for a perspective projection, z for a parallel one.
        height: of the picture in pixels.
        width: of the picture in pixels.
    """
    nearest, farthest = corners[..., 2].min(), corners[..., 2].max()
    scaled = (corners[..., 2] - nearest) / max(float(farthest - nearest), 1e-12)
    buffer = np.full(height * width, _FAR)
    for chosen, left, top, wide, high in _boxes(corners, height, width):
        x = left[:, None, None] + np.arange(wide)
        y = top[:, None, None] + np.arange(high)[:, None]
        weights = barycentric(corners[chosen][:, None, None], x + 0.5, y + 0.5)
        inside = (weights >= -_ON_EDGE).all(axis=-1) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        which, _, _ = np.nonzero(inside)
        depth = (weights[inside] * scaled[chosen][which]).sum(axis=-1).clip(0, 1)
        keys = ((depth * (_DEPTH_STEPS - 1)).astype(np.int64) << _INDEX_BITS) | chosen[which]
        at = (np.broadcast_to(y, inside.shape) * width + np.broadcast_to(x, inside.shape))[inside]
        np.minimum.at(buffer, at, keys)
    filled = np.flatnonzero(buffer != _FAR)
    rows, columns = np.divmod(filled, width)
    faces = buffer[filled] & ((1 << _INDEX_BITS) - 1)
    return Seen(rows, columns, faces, barycentric(corners[faces], columns + 0.5, rows + 0.5))


def barycentric(corners: Floats, x: Floats, y: Floats) -> Floats:
    """Return barycentric coordinates `[..., 3]` of points on the screen; all negative for a degenerate triangle.

    Args:
        corners: `[..., 3, 3]`; the depth is ignored.
        x: `[...]`.
        y: `[...]`.
    """
    (ax, ay), (bx, by), (cx, cy) = ((corners[..., i, 0], corners[..., i, 1]) for i in range(3))
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    safe = np.where(np.abs(area) < _TINY, np.nan, area)
    second = ((x - ax) * (cy - ay) - (y - ay) * (cx - ax)) / safe
    third = ((bx - ax) * (y - ay) - (by - ay) * (x - ax)) / safe
    found = np.stack([1 - second - third, second, third], axis=-1)
    return np.where(np.isnan(found), -1.0, found)


def _boxes(corners: Floats, height: int, width: int) -> Iterator[tuple[Ints, Ints, Ints, int, int]]:
    """Yield triangles whose boxes on the screen have about the same size: indices, left, top, width, height."""
    low = np.floor(corners[..., :2].min(axis=1)).astype(np.int64)
    high = np.ceil(corners[..., :2].max(axis=1)).astype(np.int64)
    low, high = np.maximum(low, 0), np.minimum(high, (width, height))
    size = high - low
    on_screen = np.flatnonzero((size > 0).all(axis=1))
    powers = np.ceil(np.log2(size[on_screen])).astype(np.int64)
    for power in np.unique(powers, axis=0):
        chosen = on_screen[(powers == power).all(axis=1)]
        wide, tall = (int(2**p) for p in power)
        step = max(1, _BATCH // (wide * tall))
        for start in range(0, len(chosen), step):
            part = chosen[start : start + step]
            yield part, low[part, 0], low[part, 1], wide, tall
