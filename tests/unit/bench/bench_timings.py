"""Timings and contenders with round numbers."""

from __future__ import annotations

from worker.bench.harness.measure import TurnTiming
from worker.bench.model_report import TimedContender


def timings(*seconds: float, images: int = 2, cpu: float = 1.0) -> list[TurnTiming]:
    """Return one turn for each time per image; `cpu` is the CPU time per image."""
    return [TurnTiming(images, images * time, images * cpu) for time in seconds]


def timed(
    label: str, role: str, *seconds: float, engine: str = "openvino", arithmetic: str = "f32", cpu: float = 1.0
) -> TimedContender:
    samples = timings(*seconds, cpu=cpu)
    return TimedContender(label, engine, role, "fp32", arithmetic, samples, 512 * 2**20, {"kernels": {}})
