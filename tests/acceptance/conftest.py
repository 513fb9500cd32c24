"""Places and workers for tests that use the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import commands
from support.stack import Place, fresh_place, make_bucket
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Compiled models are kept for the run, outside the user's own cache."""
    return {"MASKMILL_MODEL__CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture
def place(standalone: Standalone, cache: dict[str, str]) -> Place:
    """A key prefix and a bucket of this test's own."""
    found = fresh_place(standalone)
    make_bucket(found)
    return Place(found.environment | cache, found.settings, found.bucket)


@pytest.fixture(scope="module")
def working_place(
    standalone: Standalone, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    """A place with workers running, shared by the tests of a module."""
    found = fresh_place(standalone)
    make_bucket(found)
    place = Place(found.environment | cache, found.settings, found.bucket)
    with commands.workers(place.environment, tmp_path_factory.mktemp("log") / "worker.log"):
        yield place


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with Ledger(place.settings.redis) as ledger:
        yield ledger


@pytest.fixture
def store(place: Place) -> Iterator[ObjectStore]:
    with ObjectStore(place.settings.s3) as store:
        yield store


@pytest.fixture
def worker_log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"
