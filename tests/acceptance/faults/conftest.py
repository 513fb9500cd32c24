"""Places for fault tests: the engine's clocks run fast, and a test may have a Redis of its own to mistreat."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from support.faults import FAST, Faults, Scene
from support.stack import Place, fresh_place, make_bucket
from worker.contract import settings
from worker.standalone import ports
from worker.standalone.services import Standalone
from worker.standalone.valkey import Valkey

PASSWORD = "only-for-this-test"


@pytest.fixture
def place(standalone: Standalone, cache: dict[str, str]) -> Place:
    """A key prefix and a bucket of this test's own, with fast clocks."""
    return _with(fresh_place(standalone), FAST | cache)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A Redis of this test's own: kill it, restart it, fill it."""
    port = ports.choose({"redis": (0,)})["redis"]
    server = Valkey(data=tmp_path / "valkey", log=tmp_path / "valkey.log", port=port, password=PASSWORD)
    server.start()
    try:
        yield server
    finally:
        server.resume()
        server.kill()


@pytest.fixture
def own_place(standalone: Standalone, cache: dict[str, str], valkey: Valkey) -> Place:
    """A place in the test's own Redis and the S3 that all tests share."""
    own = {"MASKMILL_REDIS__URL": valkey.url, "MASKMILL_REDIS__PASSWORD": PASSWORD}
    return _with(fresh_place(standalone), FAST | cache | own)


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    """No fault yet: `dataclasses.replace` it."""
    return Faults(tmp_path / "faults")


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
    environment = place.environment | more
    with mock.patch.dict(os.environ, environment):
        loaded = settings.load()
    made = Place(environment, loaded, place.bucket)
    make_bucket(made)
    return made
