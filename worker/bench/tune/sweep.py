"""Measure layouts: all core sets of a layout run at the same time, as they do in production.

A single core set would profit from the memory bandwidth and the clock that its neighbours leave unused. The first round
measures all layouts, later ones those close to the best, so that a slow minute of the machine does not decide.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from worker.bench.harness.inference_ceiling import image_file, request
from worker.bench.harness.measure import OnProgress
from worker.bench.harness.process import Child
from worker.bench.tune.layouts import Layout
from worker.contract.errors import SetupError
from worker.cpu.placement import CoreSet
from worker.model.format.variant import Variant

CLOSE = 0.9
"""Share of the best rate; layouts below it are not measured again."""


@dataclass(frozen=True)
class Trial:
    """One layout with one network."""

    layout: Layout
    variant: Variant
    arithmetic: str

    @property
    def label(self) -> str:
        """Layout and network in words."""
        return f"{self.layout.label}, {self.variant.precision} in {self.arithmetic}"


@dataclass
class TrialResult:
    """What a trial measured."""

    trial: Trial
    rates: list[float] = field(default_factory=list)
    """Images per second of all core sets together, one per round."""

    load_seconds: float = 0.0
    peak_memory_mib: int = 0
    """Sum over the processes of the last round."""

    failed: str = ""
    """Why the trial could not run; empty if it did."""

    @property
    def rate(self) -> float:
        """Median rate over the rounds; 0 if the trial did not run."""
        return statistics.median(self.rates) if self.rates else 0.0


def sweep(trials: Sequence[Trial], *, seconds: float, rounds: int, on_progress: OnProgress) -> list[TrialResult]:
    """Run every trial; return the results, fastest first.

    Args:
        trials: the default layout first; it is measured in every round.
        seconds: to measure each, loading excluded.
        rounds: the first measures all trials, the others those close to the best.
        on_progress: called with one line before each measurement.

    Raises:
        SetupError: no trial could run.
    """
    results = [TrialResult(trial) for trial in trials]
    with tempfile.TemporaryDirectory(prefix="maskmill-tune-") as scratch:
        folder = Path(scratch)
        for number in range(rounds):
            best = max((result.rate for result in results), default=0.0)
            again = [r for r in results if not r.failed and (number == 0 or r.rate >= CLOSE * best or r is results[0])]
            for place, result in enumerate(again):
                on_progress(f"round {number + 1} of {rounds}, {place + 1} of {len(again)}: {result.trial.label}")
                _measure(result, folder, seconds)
    if not any(result.rates for result in results):
        raise SetupError(f"no layout could run: {results[0].failed}")
    return sorted(results, key=lambda result: -result.rate)


def _measure(result: TrialResult, folder: Path, seconds: float) -> None:
    """Measure a trial once and add to its result."""
    trial = result.trial
    image = image_file(folder, trial.variant.size)
    sets = trial.layout.plan.core_sets
    try:
        with ExitStack() as stack, ThreadPoolExecutor(len(sets)) as threads:
            children = list(threads.map(lambda cores: _child(trial, cores, image, folder), sets))
            for child in children:
                stack.callback(child.close)
            each = trial.layout.streams + 1  # images in flight
            first = list(threads.map(lambda child: child.run(2 * each), children))
            slowest = max(answer["wall_seconds"] for answer in first) / (2 * each)
            images = trial.layout.streams * max(2, math.ceil(seconds / slowest / trial.layout.streams))
            answers = list(threads.map(lambda child: child.run(images), children))
    except SetupError as error:
        result.failed = str(error)
        return
    result.rates.append(images * len(sets) / max(answer["wall_seconds"] for answer in answers))
    result.peak_memory_mib = sum(answer["peak_memory_bytes"] for answer in answers) >> 20
    result.load_seconds = max(float(child.first["facts"]["load_seconds"]) for child in children)


def _child(trial: Trial, cores: CoreSet, image: Path, folder: Path) -> Child:
    return Child(request(trial.variant, trial.arithmetic, cores, image), folder / f"child-{cores.index}.log")
