"""Real servers for the tests that need them: one Redis and one S3 for the whole run, a fresh place in them per test."""

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
    """Settings (also exported) of the running services with a key prefix and a bucket of this test's own."""
    place = fresh_place(standalone)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return place


@pytest.fixture
def ledger_factory(standalone: Standalone) -> Callable[[], Ledger]:
    """Each call gives a ledger that knows no jobs."""
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
