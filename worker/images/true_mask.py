"""Read a true mask, in any of the ways that data sets store one, as grey levels 0 (background) to 255 (subject).

- 8 bits, 0 to 255: as stored.
- 0 and 1 (class numbers, in 8 or 16 bits, or the indices of a dark palette): 1 becomes 255.
- 16 bits, 0 to 65535: divided by 257.

Other files whose brightest level is below one half are refused: coloured class maps, for example, whose colours are not
levels. Scored as they are, they would count as masks without a subject.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from worker.contract.errors import UnsupportedFormat
from worker.contract.settings import LimitSettings
from worker.images.decode import decode

_HALF, _FULL = 128, 255


def read_true_mask(data: bytes, limits: LimitSettings) -> npt.NDArray[np.uint8]:
    """Return the true mask u8 `[h, w]`.

    Raises:
        ImageError: see `worker.images.decode.decode`; and `UnsupportedFormat` if the levels have no agreed meaning.
    """
    levels = np.asarray(decode(data, limits).rgb.convert("L"))
    if levels.max() >= _HALF:
        return levels
    stored = _as_stored(data)
    if stored.shape != levels.shape:  # colour, or turned by EXIF
        stored = levels
    highest = int(stored.max())
    if highest > 1:
        raise UnsupportedFormat(
            f"its highest level is {highest}, so it has no subject; a true mask holds 0 and 255, 0 and 1, or grey of "
            "16 bits"
        )
    return np.where(stored > 0, np.uint8(_FULL), np.uint8(0))


def _as_stored(data: bytes) -> npt.NDArray[Any]:
    """Return the values of a file that `decode` has accepted: its own number of bits, the indices of a palette."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)
