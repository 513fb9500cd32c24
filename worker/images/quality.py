"""Measure the quality of a mask from the network's output: 1 ms at any size of picture.

Shares of the area are the same on the network's output as at the size of the picture, since the resize between them
preserves relative areas.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from worker.contract.messages import MaskQuality

SUBJECT, OPAQUE = 13, 242
"""Grey levels of 5 % and 95 % opacity: below `SUBJECT` is background, from `OPAQUE` up is opaque, between is soft."""

_HALF = 128
_EMPTY, _FULL = 0.001, 0.995


def assess(matte: Image.Image) -> MaskQuality:
    """Measure a matte (mode L) of any size.

    Returns:
        Mean opacity, share of soft pixels among those of at least 5 % opacity, and whether the mask is empty (less
        than 0.1 % of the pixels are at least half opaque), full (more than 99.5 %) or touches the border.
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
        empty=bool(subject < _EMPTY),
        full=bool(subject > _FULL),
        touches_border=any(int(edge.max()) >= _HALF for edge in edges),
    )
