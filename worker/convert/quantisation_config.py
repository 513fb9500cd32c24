"""Options of post-training quantisation, kept apart from `quantise`, which loads NNCF and OpenVINO.

Mean absolute difference of the masks from FP32, measured at 128 with stand-in weights and the photographs of
scikit-image, on a CPU without VNNI and in exact arithmetic (which VNNI gives):

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
    """Where weights use 7 bits, so that pairs of u8 * s8 products fit the 16-bit sums of CPUs without VNNI."""

    NOWHERE = "nowhere"
    FIRST_LAYER = "first-layer"
    EVERYWHERE = "everywhere"


@dataclass(frozen=True)
class QuantisationConfig:
    """Which parts are quantised, and how."""

    float_offsets: bool = False
    """Keep the convolutions that compute sampling offsets and modulators in float. They are 12.8 % of the products, and
    float reduces the difference from FP32 by a twentieth at most."""
    smooth: bool = False
    """Apply SmoothQuant. It scales the two encoder passes differently, so that they no longer share weights: 74 MB
    instead of 46, and the masks are no better (0.0395 with it, 0.0372 without)."""
    overflow: Overflow = Overflow.EVERYWHERE
    """One bundle serves every CPU: the eighth bit gains little on CPUs with VNNI and costs much on those without."""

    bias_correction: bool = True
    """Shift each bias by the mean error that rounding causes. It does harm to U²-Net-p and IS-Net (IoU with FP32 .982
    -> .975 and .964 -> .955), so `worker.convert.int8` switches it off."""

    @property
    def passes(self) -> int:
        """How often NNCF runs the pictures through the network: once for all ranges, and once before to smooth."""
        return 2 if self.smooth else 1
