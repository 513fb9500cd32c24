"""Installations and runs for fault tests, with short queue timings."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fault_injection import Faults
from support.fault_run import FaultRun
from support.fault_timing import FAST
from support.installation import Installation, make_bucket, new_installation
from worker.standalone.services import Standalone


@pytest.fixture
def installation(standalone: Standalone, cache: dict[str, str]) -> Installation:
    """An installation with short queue timings."""
    return _fast_installation(standalone, cache)


@pytest.fixture
def fault_run(installation: Installation, tmp_path: Path) -> FaultRun:
    """A run without faults yet; the test adds them with `FaultRun.configured`."""
    return FaultRun(installation, Faults(tmp_path / "faults"), tmp_path / "worker.log")


@pytest.fixture
def control_run(standalone: Standalone, cache: dict[str, str], tmp_path: Path) -> FaultRun:
    """A second run, in another installation, for the control run beside the first."""
    installation = _fast_installation(standalone, cache)
    return FaultRun(installation, Faults(tmp_path / "control-faults"), tmp_path / "control.log")


def _fast_installation(standalone: Standalone, cache: dict[str, str]) -> Installation:
    installation = new_installation(standalone).with_settings(FAST | cache)
    make_bucket(installation)
    return installation
