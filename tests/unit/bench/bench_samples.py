"""Samples and measured contenders with round numbers."""

from __future__ import annotations

from worker.bench.harness.measure import Sample
from worker.bench.report import Measured


def samples(*seconds: float, images: int = 2, cpu: float = 1.0) -> list[Sample]:
    """One turn for each time per image; `cpu` is the CPU time per image."""
    return [Sample(images, images * time, images * cpu) for time in seconds]


def measured(
    label: str, role: str, *seconds: float, engine: str = "openvino", arithmetic: str = "f32", cpu: float = 1.0
) -> Measured:
    return Measured(label, engine, role, "fp32", arithmetic, samples(*seconds, cpu=cpu), 512 * 2**20, {"kernels": {}})
