"""Places for fault tests: the engine's clocks run fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.faults import FAST, Faults, Scene
from support.shared_workers import placed
from support.stack import Place, fresh_place, make_bucket
from worker.standalone.services import Standalone


@pytest.fixture
def place(standalone: Standalone, cache: dict[str, str]) -> Place:
    """A key prefix and a bucket of this test's own, with fast clocks."""
    return _with(fresh_place(standalone), FAST | cache)


@pytest.fixture
def scene(place: Place, tmp_path: Path) -> Scene:
    """Nothing is wrong yet: see `Scene.but`."""
    return Scene(place, Faults(tmp_path / "faults"), tmp_path / "worker.log")


@pytest.fixture
def control(standalone: Standalone, cache: dict[str, str], tmp_path: Path) -> Scene:
    """A second scene, for the control run beside the first."""
    place = _with(fresh_place(standalone), FAST | cache)
    return Scene(place, Faults(tmp_path / "control-faults"), tmp_path / "control.log")


def _with(place: Place, more: dict[str, str]) -> Place:
    made = placed(place, more)
    make_bucket(made)
    return made
