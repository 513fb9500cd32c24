"""Installations and workers for tests that run the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import commands
from support.installation import Installation, make_bucket, new_installation
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The setting that keeps compiled models in a cache of this test run."""
    return {"MASKMILL_MODEL__CACHE_DIR": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture
def installation(standalone: Standalone, cache: dict[str, str]) -> Installation:
    """An installation with a bucket and without workers."""
    return _with_bucket(standalone, cache)


@pytest.fixture(scope="module")
def running_installation(
    standalone: Standalone, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """An installation with running workers, shared by the tests of a module."""
    installation = _with_bucket(standalone, cache)
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


def _with_bucket(standalone: Standalone, cache: dict[str, str]) -> Installation:
    installation = new_installation(standalone).with_settings(cache)
    make_bucket(installation)
    return installation
