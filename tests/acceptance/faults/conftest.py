"""Places for fault tests: the engine's clocks run fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.faults import FAST, Faults, Scene
from support.shared_workers import placed
from support.stack import Installation, make_bucket, new_installation
from worker.standalone.services import Standalone


@pytest.fixture
def installation(standalone: Standalone, cache: dict[str, str]) -> Installation:
    """A key prefix and a bucket of this test's own, with fast clocks."""
    return _with(new_installation(standalone), FAST | cache)


@pytest.fixture
def scene(installation: Installation, tmp_path: Path) -> Scene:
    """Nothing is wrong yet: see `Scene.but`."""
    return Scene(installation, Faults(tmp_path / "faults"), tmp_path / "worker.log")


@pytest.fixture
def control(standalone: Standalone, cache: dict[str, str], tmp_path: Path) -> Scene:
    """A second scene, for the control run beside the first."""
    installation = _with(new_installation(standalone), FAST | cache)
    return Scene(installation, Faults(tmp_path / "control-faults"), tmp_path / "control.log")


def _with(installation: Installation, more: dict[str, str]) -> Installation:
    made = placed(installation, more)
    make_bucket(made)
    return made
