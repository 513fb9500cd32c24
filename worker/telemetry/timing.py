"""Measure the wall and CPU time of the stages of an image, for both metrics and benchmarks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from worker.contract.stages import Stage

__all__ = ["Observe", "Stage", "StageTimes", "ignore_timing", "name_thread", "timed"]


Observe = Callable[[Stage, float, float], None]
"""Called with a stage, its wall time and the CPU time of its thread, in seconds. Called from several threads."""


def ignore_timing(_stage: Stage, _wall: float, _cpu: float) -> None:
    """Ignore a measurement: an `Observe` that does nothing."""


class StageTimes:
    """Times of the stages of one image. Adds them up, and reports them together.

    What runs once between two long calculations finds nothing of it in the caches of the core, and costs many times
    what it costs in a loop. So the metrics of an image are counted in one go.
    """

    def __init__(self, observe: Observe) -> None:
        """Report to `observe`."""
        self._observe = observe
        self._seconds: dict[Stage, float] = {}
        self._unreported: list[tuple[Stage, float, float]] = []

    def timed(self, stage: Stage) -> AbstractContextManager[None]:
        """Measure a block as a stage."""
        return timed(stage, self._add)

    def seconds(self) -> dict[str, float]:
        """Return the wall time of each stage so far in seconds, to a tenth of a millisecond."""
        return {stage.value: round(seconds, 4) for stage, seconds in self._seconds.items()}

    def report(self) -> None:
        """Report each measurement since the last report."""
        unreported, self._unreported = self._unreported, []
        for measured in unreported:
            self._observe(*measured)

    def _add(self, stage: Stage, wall: float, cpu: float) -> None:
        self._unreported.append((stage, wall, cpu))
        self._seconds[stage] = self._seconds.get(stage, 0.0) + wall


@contextmanager
def timed(stage: Stage, observe: Observe) -> Iterator[None]:
    """Measure a block and report it to `observe`, even if it raises."""
    wall, cpu = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        observe(stage, time.perf_counter() - wall, time.thread_time() - cpu)


def name_thread() -> None:
    """Set the name of this thread in the kernel (shown by `top -H`), which Python does only since 3.14.

    `worker bench pipeline` uses it to separate the CPU time of inference from that of other threads.
    """
    name = threading.current_thread().name
    try:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name[:15], "utf-8")
    except OSError:  # hidden or read-only /proc: the name is optional
        return
