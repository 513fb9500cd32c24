"""A bucket with photographs, and a fake worker.

Airflow and Dagster each have an environment of their own (tests/environments/), because their libraries do not go with
each other and with ours. `make orchestrators` runs these files there; elsewhere they are not collected.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from support.fake_worker import FakeWorker
from worker.contract.s3url import S3Url

collect_ignore = [f"test_{name}.py" for name in ("airflow", "dagster") if find_spec(name) is None]


@pytest.fixture
def source(installation, store) -> str:
    for key in ("a.jpg", "b.jpg", "c.jpg"):
        store.put(S3Url(installation.bucket, f"in/{key}"), b"12345", content_type="image/jpeg")
    return f"s3://{installation.bucket}/in/"


@pytest.fixture
def dest(installation) -> str:
    return f"s3://{installation.bucket}/out/"


@pytest.fixture
def fake_worker(installation, store, ledger) -> Iterator[FakeWorker]:
    worker = FakeWorker(installation.settings, store, ledger)
    with worker.running():
        yield worker
