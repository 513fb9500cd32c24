"""Measure the quality of a mask from the network's output: a few milliseconds at any size of picture.

Shares of the area are the same on the network's output as at the size of the picture, since the resize between them
preserves relative areas.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.contract.messages import MaskQuality

SUBJECT, OPAQUE = 13, 242
"""Grey levels of 5 % and 95 % opacity: below `SUBJECT` is background, from `OPAQUE` up is opaque, between is soft."""

_BACKGROUND, _SOLID = 26, 230
"""Grey levels of 10 % and 90 % opacity: where both are near, a soft pixel belongs to the edge of a subject."""

_CELLS, _CELL = 64, 5
"""Cells per side of the grid in which edges are looked for, and pixels per side of a cell. With the eight neighbours of
a cell, an edge may be as wide as 3 to 5 % of the side: hair and motion blur, but not a haze over half of a subject."""

_HALF = 128
_EMPTY, _FULL = 0.001, 0.995


def assess(matte: Image.Image) -> MaskQuality:
    """Measure a matte (mode L) of any size.

    Returns:
        Mean opacity; share of soft pixels among those of at least 5 % opacity; share of the opacity in soft pixels
        without an edge nearby; and whether the mask is empty (less than 0.1 % of the pixels are at least half opaque),
        full (more than 99.5 %) or touches the border; and the box around the pixels that are at least half opaque.
    """
    counts = np.array(matte.histogram(), np.float64)
    pixels = counts.sum()
    subject = counts[_HALF:].sum() / pixels
    some = counts[SUBJECT:].sum()
    values = np.asarray(matte)
    edges = (values[0], values[-1], values[:, 0], values[:, -1])
    return MaskQuality(
        coverage=round(float(counts @ np.arange(256)) / (255 * pixels), 4),
        soft=round(float(counts[SUBJECT:OPAQUE].sum() / some), 4) if some else 0.0,
        undecided=round(_undecided(matte), 4),
        empty=bool(subject < _EMPTY),
        full=bool(subject > _FULL),
        touches_border=any(int(edge.max()) >= _HALF for edge in edges),
        box=_box(matte),
    )


def _box(matte: Image.Image) -> tuple[float, float, float, float] | None:
    """Return the box around all pixels that are at least half opaque, as shares of width and height."""
    found = matte.point([0] * _HALF + [255] * (256 - _HALF)).getbbox()
    if found is None:
        return None
    left, top, right, bottom = found
    width, height = matte.size
    return round(left / width, 4), round(top / height, 4), round(right / width, 4), round(bottom / height, 4)


def _undecided(matte: Image.Image) -> float:
    """Share of the opacity that is in soft pixels without an edge nearby.

    A decided network is soft only where an opaque area meets the background. The thinner or hairier a subject is, the
    more of it is such an edge, so that the share of soft pixels alone says little. An undecided network is soft over
    whole areas. Opacity is summed rather than pixels: a faint halo around an opaque subject counts for little.
    """
    side = _CELLS * _CELL
    values = np.asarray(matte.resize((side, side), Image.Resampling.BOX))
    pixels = [values[i::_CELL, j::_CELL] for i in range(_CELL) for j in range(_CELL)]  # the n-th pixel of every cell
    highest, lowest = np.maximum.reduce(pixels), np.minimum.reduce(pixels)
    has_edge = (_spread(highest) >= _SOLID) & (255 - _spread(255 - lowest) <= _BACKGROUND)
    opacity = np.where(values >= SUBJECT, values, 0)
    soft = np.where(values < OPAQUE, opacity, 0)[~has_edge.repeat(_CELL, 0).repeat(_CELL, 1)]
    total = int(opacity.sum(dtype=np.int64))
    return int(soft.sum(dtype=np.int64)) / total if total else 0.0


def _spread(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The maximum of each cell and its eight neighbours."""
    padded = np.pad(cells, 1, mode="edge")
    rows = np.maximum.reduce([padded[:-2], padded[1:-1], padded[2:]])
    found: npt.NDArray[np.uint8] = np.maximum.reduce([rows[:, :-2], rows[:, 1:-1], rows[:, 2:]])
    return found
