"""Boundary IoU: the overlap of two masks within a band along their outlines.

Cheng, Girshick, Dollár, Berg and Kirillov, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation",
CVPR 2021. With `d` pixels, the boundary of a mask is the part of it that is at most `d` pixels from its outline, and
Boundary IoU is the intersection over union of the boundaries of both masks. IoU counts every pixel alike, so an outline
that is wrong by a few pixels hardly changes it if the subject is large; Boundary IoU measures the outline alone.

As in the authors' code, `d` is 2 % of the diagonal of the picture, rounded and at least 1; distance is that of the
chessboard (erosion by a 3 x 3 square, `d` times); and the border of the picture counts as outline of a subject that it
cuts off.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DILATION_RATIO = 0.02
"""Width of the band relative to the diagonal of the picture."""

Inside = npt.NDArray[np.bool_]


def boundary_iou(mask: Inside, truth: Inside, ratio: float = DILATION_RATIO) -> float:
    """Return the Boundary IoU of two masks, 0 to 1; 1 if both are empty.

    Args:
        mask: `[h, w]`, True inside the subject.
        truth: `[h, w]`.
        ratio: width of the band relative to the diagonal of the picture.

    Raises:
        ValueError: the shapes differ.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"masks of shape {mask.shape} and {truth.shape} cannot be compared")
    width = max(1, round(ratio * float(np.hypot(*mask.shape))))
    one, other = boundary(mask, width), boundary(truth, width)
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def boundary(inside: Inside, width: int) -> Inside:
    """Return the pixels of a mask that have a pixel outside it at a chessboard distance of at most `width`.

    Args:
        inside: `[h, w]`; pixels beyond the picture count as outside.
        width: of the band in pixels, at least 1.
    """
    side = 2 * width + 1
    sums = np.pad(inside.astype(np.int32), width).cumsum(axis=0).cumsum(axis=1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    count = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(inside & (count < side * side))
