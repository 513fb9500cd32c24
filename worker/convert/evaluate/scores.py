"""How near masks are to those of the FP32 network, and to the truth.

Measured on grey levels as the worker writes them, 0 background to 255 subject, one picture at a time.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.errors import SetupError
from worker.convert.evaluate.agreement import Agreement, Masks, compare

Grey = NDArray[np.uint8]

_FULL = np.float32(255)


@dataclass(frozen=True)
class Quality:
    """Of masks against true ones: the measures of salient and dichotomous segmentation, 0 to 1, means over pictures."""

    s_measure: float
    """Structure, alpha 0.5 (Fan et al., ICCV 2017)."""
    weighted_f: float
    """Weighted F, beta 1 (Margolin et al., CVPR 2014)."""
    e_measure: float
    """Enhanced alignment, mean over all thresholds (Fan et al., IJCAI 2018)."""
    mae: float
    """Mean absolute error, less is better."""
    iou: float
    """Of the pixels that are subject at 0.5; 1 where neither mask has any."""
    pictures: int


def agreement(pairs: Iterable[tuple[Grey, Grey]]) -> tuple[Agreement, float]:
    """Compare masks with those of a reference.

    Args:
        pairs: (mask, reference), u8 [h, w] of equal shape each; read one after the other.

    Returns:
        The agreement over all pictures, and the IoU of the picture that agrees least.

    Raises:
        ValueError: no pair, or one that differs in shape.
    """
    each = [compare(_probabilities(mask), _probabilities(reference)) for mask, reference in pairs]
    if not each:
        raise ValueError("agreement of no pictures")
    whole = Agreement(
        mae=statistics.fmean(one.mae for one in each),
        iou=statistics.fmean(one.iou for one in each),
        max_abs=max(one.max_abs for one in each),
        pictures=len(each),
    )
    return whole, min(one.iou for one in each)


def quality(pairs: Iterable[tuple[Grey, Grey]]) -> Quality:
    """Measure masks against true ones.

    Structure, weighted F, E-measure and MAE are those of pysodmetrics, the field's reference in Python: it stretches
    each mask to the full range first, as published figures do. IoU is taken from the mask as it is.

    Args:
        pairs: (mask, truth), u8 [h, w] of equal shape each; a true pixel is subject above 0.5.

    Raises:
        SetupError: pysodmetrics is not installed.
        ValueError: no pair, or one that differs in shape.
    """
    sod = _pysodmetrics()
    structure, weighted, aligned, error = sod.Smeasure(), sod.WeightedFmeasure(), sod.Emeasure(), sod.MAE()
    overlap = []
    for mask, truth in pairs:
        for measure in (structure, weighted, aligned, error):
            measure.step(pred=mask, gt=truth)
        overlap.append(compare(_probabilities(mask), _probabilities(truth)).iou)
    if not overlap:
        raise ValueError("quality of no pictures")
    return Quality(
        s_measure=float(structure.get_results()["sm"]),
        weighted_f=float(weighted.get_results()["wfm"]),
        e_measure=float(aligned.get_results()["em"]["curve"].mean()),
        mae=float(error.get_results()["mae"]),
        iou=statistics.fmean(overlap),
        pictures=len(overlap),
    )


def _probabilities(grey: Grey) -> Masks:
    return grey[np.newaxis].astype(np.float32) / _FULL


def _pysodmetrics() -> Any:
    try:
        return importlib.import_module("py_sod_metrics")
    except ImportError as error:
        raise SetupError("measuring against true masks needs pysodmetrics: pip install 'maskmill[convert]'") from error
