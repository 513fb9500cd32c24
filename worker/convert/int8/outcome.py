"""The outcome of a quantisation: the steps tried and their figures. Nothing here loads OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from worker.model.format.agreement_limits import Limit

LIMIT = Limit(mae=0.02, iou=0.98)
"""Least agreement with FP32 for a network to be offered in INT8, in the mean over photographs that it was not
calibrated on."""


@dataclass(frozen=True)
class Figures:
    """Agreement of masks with those of FP32, cut at 0.5 for IoU, and the time that they took."""

    iou: float
    """Mean over the pictures."""
    worst_iou: float
    mae: float
    pictures: int
    core_seconds: float
    """CPU time per picture."""

    def __str__(self) -> str:
        """Return one line for people."""
        return f"IoU {self.iou:.4f} (worst {self.worst_iou:.4f}), MAE {self.mae:.4f} on {self.pictures} photographs"


@dataclass(frozen=True)
class Step:
    """One form of the network that was judged."""

    what: str
    """In words: `all layers in INT8`."""
    figures: Figures
    float_layers: int
    """Number of layers whose activations are in float."""


@dataclass(frozen=True)
class Outcome:
    """What came of the quantisation of one network at one size."""

    holds: bool
    """Whether the last step is within the limits. If not, there is no INT8 variant."""
    steps: tuple[Step, ...]
    """In order; the last one is the one taken, if it holds."""
    exact_core_seconds: float
    """CPU time per picture of FP32 on the same CPU."""
    centred: tuple[dict[str, Any], ...] = ()
    """Convolutions from whose input constant channels were taken off: layer, channels, means."""
    float_layers: tuple[str, ...] = ()
    """Layers in float, in the order in which they were found to be noisy."""
    float_share: float = 0.0
    """Share of the products that are computed in float."""
    failure: str = ""
    """Why no form could be made; empty if some were judged."""

    @property
    def best(self) -> Step:
        """The step with the highest IoU; the taken one if it holds."""
        return self.steps[-1] if self.holds else max(self.steps, key=lambda step: step.figures.iou)

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.failure:
            return f"INT8 is not offered: {self.failure}"
        best = self.best
        if self.holds:
            return f"INT8 holds: {best.what}: {best.figures}"
        return (
            f"INT8 is not offered: the best of {len(self.steps)} forms, {best.what}, has {best.figures}; the limits "
            f"are IoU {LIMIT.iou:g} and MAE {LIMIT.mae:g}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the facts for the bundle manifest."""
        return {
            "offered": self.holds,
            "summary": self.summary,
            "weights": "8 bits; on a CPU without VNNI, sums of products may saturate: prefer fp32 there",
            "steps": [
                {"what": step.what, **asdict(step.figures), "float_layers": step.float_layers} for step in self.steps
            ],
            "fp32_core_seconds": self.exact_core_seconds,
            "constants_taken_off": list(self.centred),
            "float_layers": list(self.float_layers),
            "float_share": self.float_share,
            "limit": asdict(LIMIT),
        }

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> Outcome:
        """Return the outcome that `dataclasses.asdict` made a dictionary of."""
        steps = tuple(Step(one["what"], Figures(**one["figures"]), one["float_layers"]) for one in facts["steps"])
        return cls(
            facts["holds"],
            steps,
            facts["exact_core_seconds"],
            tuple(facts["centred"]),
            tuple(facts["float_layers"]),
            facts["float_share"],
            facts["failure"],
        )
