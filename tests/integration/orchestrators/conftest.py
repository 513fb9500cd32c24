"""A bucket with photographs, and a fake worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.fake_worker import FakeWorker
from worker.contract.s3url import S3Url


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
