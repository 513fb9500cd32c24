"""One world for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.scheduler_harness import World
from worker.contract.queue import celery_app


@pytest.fixture
def world(installation, ledger, store) -> Iterator[World]:
    app = celery_app.make_celery(installation.settings)
    yield World(installation.settings, installation.bucket, ledger, store, app)
    app.close()
