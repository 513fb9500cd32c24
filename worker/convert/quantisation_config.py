"""Choices of post-training quantisation, apart from the code that carries them out, which loads NNCF and OpenVINO.

Measured at 128 with stand-in weights and the photographs of scikit-image, mean absolute difference of the masks to
FP32, on a CPU without VNNI and in exact arithmetic (what VNNI gives):

    7-bit weights    offsets    without VNNI    exact
    nowhere          INT8       0.0396          0.0251
    first layer      INT8       0.0372          0.0266
    first layer      float      0.0368          -
    everywhere       INT8       0.0295          0.0300
    everywhere       float      0.0288          0.0284
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Overflow(StrEnum):
    """Where weights take 7 bits, so that pairs of u8 * s8 products fit the 16 bits of CPUs without VNNI."""

    NOWHERE = "nowhere"
    FIRST_LAYER = "first-layer"
    EVERYWHERE = "everywhere"


@dataclass(frozen=True)
class Recipe:
    """What is quantised, and how."""

    float_offsets: bool = False
    """Convolutions that compute sampling offsets and modulators stay in float. They are 12.8 % of the products; for
    that the difference to FP32 shrinks by a twentieth at most."""
    smooth: bool = False
    """SmoothQuant, which scales the two encoder passes apart, so that they no longer share their weights: 74 MB
    instead of 46, for no better masks (0.0395 where 0.0372 is without)."""
    overflow: Overflow = Overflow.EVERYWHERE
    """One bundle serves every CPU: the eighth bit is worth little where it works, and costs much where it does not."""

    @property
    def passes(self) -> int:
        """Times NNCF runs the pictures through the network: for all ranges at once, and before that to smooth."""
        return 2 if self.smooth else 1
