"""The load of CPUs, from two readings of /proc/stat; and `worker tune`, which refuses to measure beside it."""

from __future__ import annotations

import pytest

from worker.cli import tune
from worker.contract.errors import PlacementError
from worker.cpu import load

BEFORE = """cpu  1000 0 0 1000 0 0 0 0 0 0
cpu0 100 0 0 100 0 0 0 0 50 0
cpu1 100 0 0 100 0 0 0 0 0 0
cpu2 100 0 0 100 0 0 0 0 0 0
intr 1
"""
AFTER = """cpu  9999 0 0 1000 0 0 0 0 0 0
cpu0 150 0 50 100 0 0 0 0 90 0
cpu1 125 0 0 150 25 0 0 0 0 0
cpu2 200 0 0 100 0 0 0 0 0 0
"""


def test_busy_cpus_are_counted_without_idle_time_and_without_other_cpus(tmp_path, monkeypatch):
    (tmp_path / "proc").mkdir()
    stat = tmp_path / "proc/stat"
    stat.write_text(BEFORE)
    monkeypatch.setattr(load.time, "sleep", lambda seconds: stat.write_text(AFTER))

    assert load.busy_cpus([0, 1], 1.0, tmp_path) == pytest.approx(1.25)
    stat.write_text(BEFORE)
    monkeypatch.setattr(load.time, "sleep", lambda seconds: None)
    assert load.busy_cpus([0, 1], 1.0, tmp_path) == 0  # no tick has passed


@pytest.mark.parametrize(("share", "refused"), [(0.05, False), (0.5, True)])
def test_a_loaded_machine_is_not_measured(monkeypatch, share, refused):
    monkeypatch.setattr(tune, "busy_cpus", lambda cpus, seconds: share * len(cpus))

    if refused:
        with pytest.raises(PlacementError, match=r"other programs use \d+\.\d of \d+ CPUs.*--accept-load"):
            tune._refuse_load()
    else:
        tune._refuse_load()


def test_this_machine_can_be_read():
    assert load.busy_cpus([0], 0.01) >= 0
