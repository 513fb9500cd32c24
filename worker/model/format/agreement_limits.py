"""Least agreement with FP32 that a variant must have to be used without being asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Limit:
    """Largest accepted MAE and least accepted IoU."""

    mae: float
    iou: float

    def excess(self, mae: float, iou: float) -> str:
        """Return in words which limits these figures exceed; empty if none."""
        parts = []
        if not mae <= self.mae:  # this form also rejects NaN
            parts.append(f"MAE {mae:.4f} above {self.mae:g}")
        if not iou >= self.iou:
            parts.append(f"IoU {iou:.4f} below {self.iou:g}")
        return ", ".join(parts)


LIMITS: Mapping[str, Limit] = MappingProxyType(
    {
        # Half-precision weights are exact to 5e-4; a variant that exceeds these limits has overflowed.
        "fp16": Limit(mae=0.002, iou=0.99),
        # An INT8 form of BiRefNet-lite with its trained weights is published with IoU 0.9972 and MAE 0.0004, and an
        # INT4 form with IoU 0.976. A variant below these limits has lost more than four bits, so its calibration
        # failed.
        "int8wo": Limit(mae=0.02, iou=0.95),
        "int8": Limit(mae=0.02, iou=0.95),
    }
)
"""Limits by stored precision. They apply to trained weights: logits of untrained weights are near 0, where any rounding
flips pixels."""
