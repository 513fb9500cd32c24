"""What a mask looks like in numbers, from the network's own answer: a millisecond, whatever the size of the picture.

Shares are the same at the network's square as at the picture's size, since the resize between them keeps areas.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from worker.contract.messages import MaskQuality

SUBJECT, OPAQUE = 13, 242
"""Grey levels of 5 and 95 % opacity: below is background, between is soft."""

_HALF = 128
_EMPTY, _FULL = 0.001, 0.995


def assess(matte: Image.Image) -> MaskQuality:
    """Facts of a matte (mode L), at any size."""
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
