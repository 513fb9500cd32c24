"""Decide whether a network returns logits or probabilities, so that it never gets a second sigmoid.

The graph is asked first: whatever limits its output to 0..1 makes it a probability. Then it is run on photographs: an
output that stays in 0..1 without a limit is a probability as well, and one that leaves it is logits. What is neither is
refused, because a guess would give grey masks without an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worker.contract.errors import BundleError, SettingsError
from worker.convert.importing.request import ActivationChoice
from worker.convert.importing.shaping import Floats
from worker.model.inference.facts import OutputActivation
from worker.model.inference.value_range import ValueRange

_OVERSHOOT = 0.1
"""How far an output without a limit may leave 0..1 and still be a probability. Logits of a photograph go below -1
where there is background."""

_SMALL_LOGITS = (-1.0, 2.0)
"""Values inside these limits that leave 0..1 by more than the overshoot may be either."""

LEAST_CONTRAST = 0.25
"""Least distance of the smallest and the largest value for which the values say anything."""


@dataclass(frozen=True)
class OutputKind:
    """What a network returns, and how that was found out."""

    activation: OutputActivation
    reason: str


def decide(graph: ValueRange, masks: Sequence[Floats], choice: ActivationChoice) -> OutputKind:
    """Decide what a network returns.

    Args:
        graph: range of the output as the graph limits it.
        masks: the output on photographs.
        choice: as requested.

    Raises:
        BundleError: the output holds NaN, or values that are neither logits nor probabilities.
        SettingsError: the choice contradicts the graph, or it is needed.
    """
    values = np.stack([np.asarray(mask, np.float32) for mask in masks])
    if not np.isfinite(values).all():
        raise BundleError("the network returns NaN or infinity on a photograph; its weights or its export are damaged")
    low, high = float(values.min()), float(values.max())
    seen = f"{low:.3g}..{high:.3g} on {len(masks)} photographs"
    limited = f"{graph.origin} limits the output to 0..1" if graph.is_probability else ""
    if choice == "sigmoid":
        if limited:
            raise SettingsError(f"--activation sigmoid: {limited}, and a second sigmoid would turn every mask grey")
        return OutputKind(OutputActivation.LOGITS, f"as requested; values {seen}")
    if choice == "none":
        return OutputKind(OutputActivation.PROBABILITY, f"as requested; values {seen}")
    if limited:
        return OutputKind(OutputActivation.PROBABILITY, f"{limited}; values {seen}")
    return _from_values(low, high, seen)


def _from_values(low: float, high: float, seen: str) -> OutputKind:
    ask = "say what they are: --activation none for probabilities, --activation sigmoid for logits"
    if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        if high - low < LEAST_CONTRAST:
            raise SettingsError(f"the values {seen} tell too little about the output; {ask}")
        return OutputKind(OutputActivation.PROBABILITY, f"nothing limits the output, but its values are {seen}")
    if low >= 0:
        raise BundleError(
            f"the values {seen} are never negative and leave 0..1, so they are neither logits nor probabilities; "
            f"export the network without its last step, or {ask}"
        )
    if _SMALL_LOGITS[0] < low and high < _SMALL_LOGITS[1]:
        raise SettingsError(f"the values {seen} may be small logits or probabilities that overshoot; {ask}")
    return OutputKind(OutputActivation.LOGITS, f"nothing limits the output, and its values are {seen}")
