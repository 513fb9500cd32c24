"""Compute the coordinates of the chart that the template draws as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 1040, 220
"""Of the chart, in SVG units."""

LEFT, BOTTOM = 56, 24
"""Space for the labels of the axes, in SVG units."""

_SHORT_JOB_SECONDS = 100
"""Up to this length of a job, the time axis is in seconds."""

_ROUND_STEPS = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True)
class Bar:
    """A rectangle and its tooltip."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: its position in SVG units, and its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Bars over time, with the ticks of the vertical axis (`rows`) and of the time axis (`columns`)."""

    bars: list[Bar]
    rows: list[Tick]
    columns: list[Tick]


def throughput(counts: Sequence[int], step: float) -> Chart:
    """Return the chart of images per second over time.

    Args:
        counts: images in each time step.
        step: length of a time step in seconds.
    """
    rates = [count / step for count in counts]
    top = round_up(max(rates, default=0.0) or 1.0)
    width = (WIDTH - LEFT) / max(1, len(rates))
    bars = []
    for number, rate in enumerate(rates):
        height = rate / top * (HEIGHT - BOTTOM)
        title = f"{_clock(number * step)}: {rate:.3g} images/s"
        bars.append(Bar(LEFT + number * width, HEIGHT - BOTTOM - height, max(0.5, width - 1), height, title))
    rows = [Tick((HEIGHT - BOTTOM) * (1 - share), f"{top * share:.3g}") for share in (0, 0.5, 1)]
    total = len(rates) * step
    label = _clock if total > _SHORT_JOB_SECONDS else "{:.3g} s".format
    columns = [Tick(LEFT + (WIDTH - LEFT) * share, label(total * share)) for share in (0, 0.25, 0.5, 0.75, 1)]
    return Chart(bars, rows, columns)


def round_up(value: float) -> float:
    """Return the smallest round number not below the value: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in _ROUND_STEPS if power * step >= value * (1 - 1e-9))


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
