"""What the CPU of the tests can do, for those whose result depends on it."""

from __future__ import annotations

from worker.cpu.isa import VNNI
from worker.model.inference.runtime import cpu_flags


def has_vnni() -> bool:
    """Return whether INT8 products are exact: without VNNI, sums of two 8-bit products saturate at 16 bits."""
    return not VNNI.isdisjoint(cpu_flags().split())
