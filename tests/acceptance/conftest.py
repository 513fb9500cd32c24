"""Places and workers for tests that use the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import commands
from support.stack import Installation, make_bucket, new_installation
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Compiled models are kept for the run, outside the user's own cache."""
    return {"MASKMILL_MODEL__CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture
def installation(standalone: Standalone, cache: dict[str, str]) -> Installation:
    """A key prefix and a bucket of this test's own."""
    found = new_installation(standalone)
    make_bucket(found)
    return Installation(found.environment | cache, found.settings, found.bucket)


@pytest.fixture(scope="module")
def running_installation(
    standalone: Standalone, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A installation with workers running, shared by the tests of a module."""
    found = new_installation(standalone)
    make_bucket(found)
    installation = Installation(found.environment | cache, found.settings, found.bucket)
    with commands.workers(installation.environment, tmp_path_factory.mktemp("log") / "worker.log"):
        yield installation


@pytest.fixture
def ledger(installation: Installation) -> Iterator[Ledger]:
    with Ledger(installation.settings.redis) as ledger:
        yield ledger


@pytest.fixture
def store(installation: Installation) -> Iterator[ObjectStore]:
    with ObjectStore(installation.settings.s3) as store:
        yield store


@pytest.fixture
def worker_log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"
