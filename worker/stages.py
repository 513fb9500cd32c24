"""Where the time of an image goes: one measurement for metrics and benchmarks alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


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
