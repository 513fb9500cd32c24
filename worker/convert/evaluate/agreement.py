"""Agreement of a variant's masks with those of FP32.

Pure NumPy. Masks are probabilities (the sigmoid of the logits) at the size of the network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.model.format.agreement_limits import Limit

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

    def complaint(self, limit: Limit) -> str:
        """Return in words which limits are exceeded; empty if none."""
        return limit.excess(self.mae, self.iou)

    def as_dict(self) -> dict[str, float | int]:
        """Return the fields for JSON, rounded to six decimals."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


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
