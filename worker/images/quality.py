"""Measure the quality of a mask from the network's output: a few milliseconds at any size of picture.

Shares of the area are the same on the network's output as at the size of the picture, since the resize between them
preserves relative areas.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.contract.messages import MaskQuality
from worker.images.shared_pixels import pixels_of

SUBJECT, OPAQUE = 13, 242
"""Grey levels of 5 % and 95 % opacity: below `SUBJECT` is background, from `OPAQUE` up is opaque, between is soft."""

_BACKGROUND, _SOLID = 26, 230
"""Grey levels of 10 % and 90 % opacity: where both are near, a soft pixel belongs to the edge of a subject."""

_CELLS, _CELL = 64, 5
"""Cells per side of the grid in which edges are looked for, and pixels per side of a cell. With the eight neighbours of
a cell, an edge may be as wide as 3 to 5 % of the side: hair and motion blur, but not a haze over half of a subject."""

_HALF = 128
_EMPTY, _FULL = 0.001, 0.995
_Int = TypeVar("_Int", np.uint8, np.uint16)


def assess(matte: Image.Image) -> MaskQuality:
    """Measure a matte (mode L) of any size.

    Returns:
        Mean opacity; share of soft pixels among those of at least 5 % opacity; share of the opacity in soft pixels
        without an edge nearby; and whether the mask is empty (less than 0.1 % of the pixels are at least half opaque),
        full (more than 99.5 %) or touches the border; and the box around the pixels that are at least half opaque.
    """
    values = pixels_of(matte)
    # Comparisons are many times faster than a histogram, which waits for memory where neighbours are equal.
    subject, some, opaque = (int(np.count_nonzero(values >= level)) for level in (_HALF, SUBJECT, OPAQUE))
    total = int(values.sum(1, dtype=np.uint32).sum(dtype=np.uint64))
    rows, columns = values.max(1) >= _HALF, values.max(0) >= _HALF
    return MaskQuality(
        coverage=round(total / (255 * values.size), 4),
        soft=round((some - opaque) / some, 4) if some else 0.0,
        undecided=round(_undecided(matte), 4),
        empty=subject / values.size < _EMPTY,
        full=subject / values.size > _FULL,
        touches_border=bool(rows[0] or rows[-1] or columns[0] or columns[-1]),
        box=_box(rows, columns),
    )


def _box(rows: npt.NDArray[np.bool_], columns: npt.NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """Return the box around the marked rows and columns, as shares of width and height; None if none is marked."""
    if not rows.any():
        return None
    (left, right), (top, bottom) = _ends(columns), _ends(rows)
    return left, top, right, bottom


def _ends(marked: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return the beginning of the first and the end of the last marked element, as shares of the length."""
    length = len(marked)
    return round(int(marked.argmax()) / length, 4), round((length - int(marked[::-1].argmax())) / length, 4)


def _undecided(matte: Image.Image) -> float:
    """Share of the opacity that is in soft pixels without an edge nearby.

    A decided network is soft only where an opaque area meets the background. The thinner or hairier a subject is, the
    more of it is such an edge, so that the share of soft pixels alone says little. An undecided network is soft over
    whole areas. Opacity is summed rather than pixels: a faint halo around an opaque subject counts for little.
    """
    side = _CELLS * _CELL
    values = pixels_of(matte.resize((side, side), Image.Resampling.BOX))
    highest, lowest = _over_cells(np.maximum, values), _over_cells(np.minimum, values)
    has_edge = (_spread(highest) >= _SOLID) & (255 - _spread(255 - lowest) <= _BACKGROUND)
    opacity = values * (values >= SUBJECT)
    soft = (opacity * (values < OPAQUE)).astype(np.uint16)  # the 25 pixels of a cell sum to at most 6,375
    total = int(opacity.sum(dtype=np.uint32))
    return int(_over_cells(np.add, soft)[~has_edge].sum(dtype=np.uint32)) / total if total else 0.0


def _over_cells(combine: np.ufunc, pixels: npt.NDArray[_Int]) -> npt.NDArray[_Int]:
    """Combine the pixels of every cell: rows first, because they are contiguous in memory."""
    rows = combine.reduce([pixels[i::_CELL] for i in range(_CELL)], dtype=pixels.dtype)
    found: npt.NDArray[_Int] = combine.reduce([rows[:, j::_CELL] for j in range(_CELL)], dtype=pixels.dtype)
    return found


def _spread(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The maximum of each cell and its eight neighbours."""
    padded = np.pad(cells, 1, mode="edge")
    rows = np.maximum.reduce([padded[:-2], padded[1:-1], padded[2:]])
    found: npt.NDArray[np.uint8] = np.maximum.reduce([rows[:, :-2], rows[:, 1:-1], rows[:, 2:]])
    return found
