"""A bucket with photographs, and a fake worker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.fake_worker import Understudy
from worker.contract.s3url import S3Url


@pytest.fixture
def source(place, store) -> str:
    for key in ("a.jpg", "b.jpg", "c.jpg"):
        store.put(S3Url(place.bucket, f"in/{key}"), b"12345", content_type="image/jpeg")
    return f"s3://{place.bucket}/in/"


@pytest.fixture
def dest(place) -> str:
    return f"s3://{place.bucket}/out/"


@pytest.fixture
def understudy(place, store, ledger) -> Iterator[Understudy]:
    found = Understudy(place.settings, store, ledger)
    with found.at_work():
        yield found
