"""Bucket events are delivered at least once, so a second delivery must not make a second job."""

from __future__ import annotations

import pytest

from producer import Client
from producer.integrations.s3_events import submit_created
from worker.contract.s3url import S3Url


@pytest.mark.usefixtures("fake_worker")
def test_a_second_delivery_joins_the_job_of_the_first(installation, source, dest, store, ledger):
    def written(*keys: str) -> dict:
        items = [{"key": f"in/{key}", "eTag": store.head(S3Url(installation.bucket, f"in/{key}")).etag} for key in keys]
        return {
            "Records": [
                {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": installation.bucket}, "object": item}}
                for item in items
            ]
        }

    with Client(installation.settings) as client:
        first = submit_created(client, written("a.jpg", "b.jpg"), source, dest)
        client.wait(first.job, timeout=20, poll_seconds=0.05)
        second = submit_created(client, written("b.jpg", "a.jpg"), source, dest)
        third = submit_created(client, written("c.jpg"), source, dest)

    assert (second.job, second.joined, third.joined) == (first.job, True, False)
    assert first.view.total == 2 and len(ledger.jobs(10)) == 2
