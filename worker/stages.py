"""Where the time of an image goes: one measurement for metrics and benchmarks alike."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path


class Stage(StrEnum):
    """What happens to an image, in order."""

    CHECK = "check"
    """Are its outputs up to date?"""
    FETCH = "fetch"
    DECODE = "decode"
    PREPARE = "prepare"
    """Resize to the network's input."""
    INFER = "infer"
    """Waiting for an idle request included."""
    RENDER = "render"
    """Mask to full size, compose, encode."""
    HOLD = "hold"
    """Begun ahead: waiting for its chunk to be ours. Not observed for images that were not."""
    STORE = "store"
    RECORD = "record"
    """Tell the ledger."""


Observe = Callable[[Stage, float, float], None]
"""Told the stage, its wall time and the CPU time of its thread, in seconds; called from several threads."""


def nobody(_stage: Stage, _wall: float, _cpu: float) -> None:
    """Nobody is interested."""


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
