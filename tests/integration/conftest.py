"""Real servers: one Redis and one S3 for the whole run, with a fresh key prefix and bucket for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.stack import Place, fresh_place, make_bucket
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone


@pytest.fixture
def place(standalone: Standalone, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Return and export settings of the running services with a key prefix and a bucket for this test."""
    place = fresh_place(standalone)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return place


@pytest.fixture
def ledger_factory(standalone: Standalone) -> Callable[[], Ledger]:
    """Return a function that opens a ledger without jobs."""
    return lambda: Ledger(fresh_place(standalone).settings.redis)


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    with Ledger(place.settings.redis) as ledger:
        yield ledger


@pytest.fixture
def chunk_ledger(ledger: Ledger) -> ChunkLedger:
    """The chunks of the jobs in `ledger`."""
    return ChunkLedger(ledger.connection)


@pytest.fixture
def store(place: Place) -> Iterator[ObjectStore]:
    make_bucket(place)
    with ObjectStore(place.settings.s3) as store:
        yield store
