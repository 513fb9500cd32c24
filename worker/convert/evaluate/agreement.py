"""Agreement of a variant's masks with those of FP32, and its limits.

Pure NumPy. Masks are probabilities (the sigmoid of the logits) at the size of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Masks = npt.NDArray[np.floating[Any]]

THRESHOLD = 0.5
"""Probability from which a pixel belongs to the subject."""


@dataclass(frozen=True)
class Agreement:
    """Agreement over all pictures."""

    mae: float
    """Mean absolute difference of the masks, 0 to 1."""
    iou: float
    """Intersection over union of the subjects, mean over the pictures; 1 for a picture whose masks are both empty."""
    max_abs: float
    """Largest absolute difference at any pixel."""
    pictures: int

    def as_dict(self) -> dict[str, float | int]:
        """Return the fields for JSON, rounded to six decimals."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Limit:
    """Largest accepted MAE and least accepted IoU."""

    mae: float
    iou: float

    def complaint(self, got: Agreement) -> str:
        """Return in words which limits `got` exceeds; empty if none."""
        parts = []
        if not got.mae <= self.mae:  # this form also rejects NaN
            parts.append(f"MAE {got.mae:.4f} above {self.mae:g}")
        if not got.iou >= self.iou:
            parts.append(f"IoU {got.iou:.4f} below {self.iou:g}")
        return ", ".join(parts)


LIMITS: Mapping[str, Limit] = MappingProxyType(
    {
        # Half-precision weights are exact to 5e-4; a variant that exceeds these limits has overflowed.
        "fp16": Limit(mae=0.002, iou=0.99),
        # An INT8 form of this network with its trained weights is published with IoU 0.9972 and MAE 0.0004, and an INT4
        # form with IoU 0.976. A variant below these limits has lost more than four bits, so its calibration failed.
        "int8wo": Limit(mae=0.02, iou=0.95),
        "int8": Limit(mae=0.02, iou=0.95),
    }
)
"""Limits by stored precision. They apply to trained weights: logits of untrained weights are near 0, where any rounding
flips pixels."""


def compare(masks: Masks, reference: Masks) -> Agreement:
    """Compare masks with those of FP32.

    Args:
        masks: float `[n, ..., h, w]`, 0 to 1.
        reference: masks of FP32, of the same shape.

    Raises:
        ValueError: the shapes differ, or there are no masks.
    """
    if masks.shape != reference.shape or not masks.size:
        raise ValueError(f"masks of shape {masks.shape} cannot be compared with {reference.shape}")
    distance = np.abs(masks - reference)
    return Agreement(
        mae=float(distance.mean(dtype=np.float64)),
        iou=float(np.mean([_iou(one, other) for one, other in zip(masks, reference, strict=True)])),
        max_abs=float(distance.max()),
        pictures=len(masks),
    )


def _iou(one: Masks, other: Masks) -> float:
    here, there = one >= THRESHOLD, other >= THRESHOLD
    union = int((here | there).sum())
    return float((here & there).sum() / union) if union else 1.0
