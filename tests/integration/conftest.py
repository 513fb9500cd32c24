"""Real services: one Redis and one S3 for the whole run, and in them a new installation for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.clocks import PauseClock
from support.installation import Installation, new_installation
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone


@pytest.fixture
def installation(standalone: Standalone, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """A new installation, whose settings are also set in the environment."""
    installation = new_installation(standalone)
    for name, value in installation.environment.items():
        monkeypatch.setenv(name, value)
    return installation


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> PauseClock:
    """Let pauses between two tries to reach Redis pass at once, in this process; their sum is in `paused`."""
    clock = PauseClock()
    clock.drive_redis(monkeypatch)
    return clock


@pytest.fixture
def ledger_factory(standalone: Standalone) -> Callable[[], Ledger]:
    """Return a function that creates an empty ledger."""
    return lambda: Ledger(new_installation(standalone).settings.redis)


@pytest.fixture
def ledger(installation: Installation) -> Iterator[Ledger]:
    with Ledger(installation.settings.redis) as ledger:
        yield ledger


@pytest.fixture
def chunk_ledger(ledger: Ledger) -> ChunkLedger:
    """The chunks of the jobs in `ledger`."""
    return ChunkLedger(ledger.connection)


@pytest.fixture
def store(installation: Installation) -> Iterator[ObjectStore]:
    with ObjectStore(installation.settings.s3) as store:
        store.ensure_bucket(installation.bucket)
        yield store
