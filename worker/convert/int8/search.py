"""Find a form of a network in INT8 that holds, from the fastest on.

    constant channels taken off ── all layers, residual sums and resizing in INT8 ── sums and resizing in float
        ── the answer in float ── 1, 2, 4, ... noisy layers in float

Each form is judged on photographs, and the first one within the limits is taken. If more than half of the products
would be in float, the search ends: little would be gained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.convert.int8.outcome import LIMIT, Figures, Step
from worker.convert.int8.rounding_noise import LayerNoise

MOST_FLOAT = 0.5
"""Largest share of the products in float."""


class Candidate(Protocol):
    """A quantised network of which parts can be put back in float, never the other way."""

    def float_maps(self) -> bool:
        """Let residual sums and resizing read maps in float; return False if all do."""

    def float_answer(self) -> bool:
        """Compute what follows the last layers in float; return False if it is in float already."""

    def noise(self) -> Sequence[LayerNoise]:
        """Return the rounding noise of each layer, the worst first."""

    def float_layers(self, layers: Sequence[LayerNoise]) -> None:
        """Leave these layers in float."""

    def products(self) -> Mapping[str, int]:
        """Return the number of products of each layer by name."""

    def judge(self) -> Figures:
        """Compare the masks with those of FP32."""


@dataclass(frozen=True)
class Found:
    """The result of a search."""

    holds: bool
    steps: tuple[Step, ...]
    float_layers: tuple[str, ...]
    float_share: float


def search(candidate: Candidate, start: str, on_step: Callable[[Step], None] = lambda step: None) -> Found:
    """Put parts of the network back in float until it holds.

    Args:
        candidate: with all layers in INT8.
        start: this first form in words.
        on_step: called with each form that was judged.
    """
    steps: list[Step] = []
    chosen: list[LayerNoise] = []
    products = candidate.products()

    def holds(what: str) -> bool:
        figures = candidate.judge()
        steps.append(Step(what, figures, len(chosen)))
        on_step(steps[-1])
        return within_limit(figures)

    def found(*, is_good: bool) -> Found:
        return Found(is_good, tuple(steps), tuple(one.name for one in chosen), round(_share(chosen, products), 4))

    if holds(start):
        return found(is_good=True)
    suffix = ""
    for part, put_in_float in (("sums and resizing", candidate.float_maps), ("the answer", candidate.float_answer)):
        if put_in_float():
            suffix += f", {part} in float"
            if holds(f"{start}{suffix}"):
                return found(is_good=True)
    waiting = list(candidate.noise())
    while waiting:
        size = max(len(chosen), 1)  # 1, 2, 4, 8, ... layers in all
        group, waiting = waiting[:size], waiting[size:]
        chosen += group
        if _share(chosen, products) > MOST_FLOAT:
            del chosen[-len(group) :]
            break
        candidate.float_layers(group)
        if holds(f"{start}{suffix}, {len(chosen)} noisy layers in float"):
            return found(is_good=True)
    return found(is_good=False)


def _share(chosen: Sequence[LayerNoise], products: Mapping[str, int]) -> float:
    """Return the share of the products that these layers compute."""
    return sum(products.get(one.name, 0) for one in chosen) / max(sum(products.values()), 1)


def within_limit(figures: Figures) -> bool:
    """Tell whether a form may be offered. The form of the comparison also refuses NaN."""
    return figures.iou >= LIMIT.iou and figures.mae <= LIMIT.mae
