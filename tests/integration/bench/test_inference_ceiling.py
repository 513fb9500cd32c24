"""The inference ceiling runs on all core sets at once: beside idle neighbours a core set would look too fast."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from worker.bench.harness import inference_ceiling
from worker.contract.input_size import InputSize
from worker.cpu.placement import CoreSet
from worker.model.format.variant import Variant

VARIANT = Variant("tiny", InputSize.square(64), "fp32", Path("tiny.xml"), Path("tiny.bin"), "0" * 64)
SETS = [CoreSet(index, (index,), 0, 0, 0, 1, 1) for index in range(3)]


class FakeChild:
    """Answers only after all children got the question."""

    together = threading.Barrier(len(SETS), timeout=5)
    closed = 0

    def __init__(self, request, log) -> None:
        self.first = {"facts": {"streams": request["streams"]}}
        self.cpus = request["cpus"]

    def run(self, images):
        self.together.wait()
        return {"wall_seconds": 1.0 + self.cpus[0], "cpu_seconds": 0.5}

    def close(self) -> None:
        FakeChild.closed += 1


def test_all_core_sets_run_at_the_same_time(monkeypatch, tmp_path):
    monkeypatch.setattr(inference_ceiling, "Child", FakeChild)

    with inference_ceiling.InferenceCeiling(VARIANT, "f32", SETS, tmp_path) as ceiling:
        timing = ceiling.turn(4)

    assert (timing.images, timing.wall_seconds, timing.cpu_seconds) == (12, 3.0, pytest.approx(1.5))
    assert FakeChild.closed == 3
