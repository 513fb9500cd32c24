"""Tries layouts: all core sets of a layout work at the same time, as they will in production.

A lone core set would profit from its neighbours' memory bandwidth and clock. Rounds go over all layouts, then over
those that are close to the best: a slow minute of the machine must not decide.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from worker.bench.harness.inference_ceiling import image_file, request
from worker.bench.harness.process import Child
from worker.bench.tune.layouts import Layout
from worker.contract.errors import SetupError
from worker.cpu.placement import CoreSet
from worker.model.format.variant import Variant

CLOSE = 0.9
"""Of the best rate: layouts below it are not tried again."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """One layout with one network."""

    layout: Layout
    variant: Variant
    arithmetic: str

    @property
    def label(self) -> str:
        """In words."""
        return f"{self.layout.label}, {self.variant.precision} in {self.arithmetic}"


@dataclass
class Result:
    """What became of a trial."""

    trial: Trial
    rates: list[float] = field(default_factory=list)
    """Images per second of the whole machine, one per round."""

    load_seconds: float = 0.0
    peak_memory_mib: int = 0
    """Of all processes together."""

    failed: str = ""

    @property
    def rate(self) -> float:
        """Median over the rounds; 0 if it did not run."""
        return statistics.median(self.rates) if self.rates else 0.0


def sweep(trials: Sequence[Trial], *, seconds: float, rounds: int, say: Say) -> list[Result]:
    """Run every trial; the fastest first in the answer.

    Args:
        trials: the default layout first.
        seconds: to measure each, beside loading.
        rounds: over all in the first, then over those close to the best.
        say: told what happens.

    Raises:
        SetupError: none could run.
    """
    results = [Result(trial) for trial in trials]
    with tempfile.TemporaryDirectory(prefix="maskmill-tune-") as scratch:
        folder = Path(scratch)
        for number in range(rounds):
            best = max((result.rate for result in results), default=0.0)
            again = [r for r in results if not r.failed and (number == 0 or r.rate >= CLOSE * best or r is results[0])]
            for place, result in enumerate(again):
                say(f"round {number + 1} of {rounds}, {place + 1} of {len(again)}: {result.trial.label}")
                _try(result, folder, seconds)
    if not any(result.rates for result in results):
        raise SetupError(f"no layout could be tried: {results[0].failed}")
    return sorted(results, key=lambda result: -result.rate)


def _try(result: Result, folder: Path, seconds: float) -> None:
    trial = result.trial
    image = image_file(folder, trial.variant.size)
    sets = trial.layout.plan.core_sets
    try:
        with ExitStack() as stack, ThreadPoolExecutor(len(sets)) as threads:
            children = list(threads.map(lambda cores: _child(trial, cores, image, folder), sets))
            for child in children:
                stack.callback(child.close)
            each = trial.layout.streams + 1  # in flight
            first = list(threads.map(lambda child: child.ask({"images": 2 * each}), children))
            slowest = max(answer["wall_seconds"] for answer in first) / (2 * each)
            images = trial.layout.streams * max(2, math.ceil(seconds / slowest / trial.layout.streams))
            answers = list(threads.map(lambda child: child.ask({"images": images}), children))
    except SetupError as error:
        result.failed = str(error)
        return
    result.rates.append(images * len(sets) / max(answer["wall_seconds"] for answer in answers))
    result.peak_memory_mib = sum(int(answer["peak_memory_bytes"]) for answer in answers) >> 20
    result.load_seconds = max(float(child.first["facts"]["load_seconds"]) for child in children)


def _child(trial: Trial, cores: CoreSet, image: Path, folder: Path) -> Child:
    return Child(request(trial.variant, trial.arithmetic, cores, image), folder / f"child-{cores.index}.log")
