"""A fresh world for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.scheduler_harness import SchedulerHarness
from worker.contract.queue import celery_app


@pytest.fixture
def world(installation, ledger, store) -> Iterator[SchedulerHarness]:
    app = celery_app.make_celery(installation.settings)
    yield SchedulerHarness(installation.settings, installation.bucket, ledger, store, app)
    app.close()
