"""The workers of `bench pipeline` follow the plan of its inference ceiling."""

from __future__ import annotations

from worker.bench.pipeline import as_planned
from worker.contract.settings import PlanSettings, Settings


def test_a_plan_is_passed_to_the_workers_as_settings(monkeypatch):
    plan = PlanSettings(processes=2, streams=1, memory_per_stream_mib=50)  # u2netp in INT8 and bf16
    for name, value in as_planned(plan).items():
        monkeypatch.setenv(name, value)

    assert Settings().plan == plan
