"""Scores of masks against those of the FP32 network, and against true masks.

They are measured on grey levels as the worker writes them, 0 (background) to 255 (subject), one picture at a time.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract.errors import SetupError
from worker.convert.evaluate.agreement import THRESHOLD, Agreement, Masks, compare
from worker.convert.evaluate.boundary import boundary_iou

Grey = NDArray[np.uint8]

_FULL = np.float32(255)


@dataclass(frozen=True)
class Quality:
    """Quality of masks by the measures of salient and dichotomous segmentation: 0 to 1, means over the pictures."""

    s_measure: float
    """Structure measure, alpha 0.5 (Fan et al., ICCV 2017)."""
    weighted_f: float
    """Weighted F-measure, beta 1 (Margolin et al., CVPR 2014)."""
    e_measure: float
    """Enhanced-alignment measure, mean over all thresholds (Fan et al., IJCAI 2018)."""
    mae: float
    """Mean absolute error; lower is better."""
    iou: float
    """Intersection over union of the pixels from 0.5 up; 1 where neither mask has any."""
    boundary_iou: float
    """IoU of the bands along the outlines; see `worker.convert.evaluate.boundary`."""
    pictures: int


def agreement(pairs: Iterable[tuple[Grey, Grey]]) -> tuple[Agreement, float]:
    """Compare masks with those of a reference.

    Args:
        pairs: (mask, reference), u8 `[h, w]` of the same shape within a pair; read one pair at a time.

    Returns:
        The agreement over all pictures, and the lowest IoU of a picture.

    Raises:
        ValueError: there is no pair, or the shapes of a pair differ.
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
    """Return the mean `score` over the pictures.

    Args:
        pairs: (mask, true mask), u8 `[h, w]` of the same shape within a pair; true pixels above 0.5 are subject.

    Raises:
        SetupError: pysodmetrics is not installed.
        ValueError: there is no pair, or the shapes of a pair differ.
    """
    return mean([score(mask, truth) for mask, truth in pairs])


def score(mask: Grey, truth: Grey) -> Quality:
    """Measure one mask against the true mask.

    S-measure, weighted F, E-measure and MAE are computed by pysodmetrics, the field's reference in Python. It first
    stretches the mask to the full range, as in published figures. IoU and Boundary IoU are computed from the
    unstretched mask, cut at 0.5.

    Args:
        mask: u8 `[h, w]`.
        truth: u8 `[h, w]`; pixels above 0.5 are subject.

    Raises:
        SetupError: pysodmetrics is not installed.
        ValueError: the shapes differ.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"a mask of shape {mask.shape} cannot be scored against one of {truth.shape}")
    sod = _pysodmetrics()
    structure, weighted, aligned, error = sod.Smeasure(), sod.WeightedFmeasure(), sod.Emeasure(), sod.MAE()
    for measure in (structure, weighted, aligned, error):
        measure.step(pred=mask, gt=truth)
    here, there = _probabilities(mask), _probabilities(truth)
    return Quality(
        s_measure=float(structure.get_results()["sm"]),
        weighted_f=float(weighted.get_results()["wfm"]),
        e_measure=float(aligned.get_results()["em"]["curve"].mean()),
        mae=float(error.get_results()["mae"]),
        iou=compare(here, there).iou,
        boundary_iou=boundary_iou(here[0] >= THRESHOLD, there[0] >= THRESHOLD),
        pictures=1,
    )


def mean(scored: Sequence[Quality]) -> Quality:
    """Return the mean over pictures.

    Raises:
        ValueError: there are no pictures.
    """
    if not scored:
        raise ValueError("quality of no pictures")
    measures = [field.name for field in fields(Quality) if field.name != "pictures"]
    means = {name: statistics.fmean(getattr(one, name) for one in scored) for name in measures}
    return Quality(**means, pictures=sum(one.pictures for one in scored))


def _probabilities(grey: Grey) -> Masks:
    return grey[np.newaxis].astype(np.float32) / _FULL


def _pysodmetrics() -> Any:
    try:
        return importlib.import_module("py_sod_metrics")
    except ImportError as error:
        raise SetupError("scoring against true masks requires pysodmetrics: pip install 'maskmill[convert]'") from error
