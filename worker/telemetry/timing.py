"""Where the time of an image goes: one measurement for metrics and benchmarks alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from worker.contract.stages import Stage

__all__ = ["Observe", "Spent", "Stage", "name_thread", "nobody", "timed"]


Observe = Callable[[Stage, float, float], None]
"""Told the stage, its wall time and the CPU time of its thread, in seconds; called from several threads."""


def nobody(_stage: Stage, _wall: float, _cpu: float) -> None:
    """Nobody is interested."""


class Spent:
    """The stages of one image: adds them up and passes each on."""

    def __init__(self, observe: Observe) -> None:
        """`observe` learns what this does."""
        self._observe = observe
        self._seconds: dict[Stage, float] = {}

    def timed(self, stage: Stage) -> AbstractContextManager[None]:
        """Measure a block."""
        return timed(stage, self._add)

    def seconds(self) -> dict[str, float]:
        """Wall time of each stage so far, to a tenth of a millisecond."""
        return {stage.value: round(seconds, 4) for stage, seconds in self._seconds.items()}

    def _add(self, stage: Stage, wall: float, cpu: float) -> None:
        self._observe(stage, wall, cpu)
        self._seconds[stage] = self._seconds.get(stage, 0.0) + wall


@contextmanager
def timed(stage: Stage, observe: Observe) -> Iterator[None]:
    """Measure a block, also one that raises."""
    wall, cpu = time.perf_counter(), time.thread_time()
    try:
        yield
    finally:
        observe(stage, time.perf_counter() - wall, time.thread_time() - cpu)


def name_thread() -> None:
    """Show the name of this thread to the system (`top -H`), which Python before 3.14 keeps to itself.

    `worker bench pipeline` tells by it what inference costs from what is around it.
    """
    name = threading.current_thread().name
    try:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name[:15], "utf-8")
    except OSError:  # hidden or read-only: nothing depends on it
        return
