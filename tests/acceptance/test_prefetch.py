"""No core waits between two chunks: the first images of the next chunk start before the current one ends."""

from __future__ import annotations

import urllib.request

import pytest

from support import commands
from support.work_items import JPEG
from worker.contract import redis_keys
from worker.contract.job import JobStatus
from worker.contract.s3url import S3Url
from worker.standalone import ports

IMAGES, CHUNK = 120, 6
SETTINGS = {"MASKMILL_JOBS__CHUNK_IMAGES": str(CHUNK)}


@pytest.fixture
def job(installation, store) -> str:
    """Submit a job of 20 chunks."""
    for number in range(IMAGES):
        store.put(S3Url(installation.bucket, f"photos/{number:03d}.jpg"), JPEG, content_type="image/jpeg")
    submitted = commands.run(
        "producer",
        *("submit", f"s3://{installation.bucket}/photos/", f"s3://{installation.bucket}/masks/", "--json"),
        settings=installation.environment | SETTINGS,
    )
    assert submitted.code == 0, submitted.err
    return submitted.lines[0]["job"]


def started_ahead(port: int) -> int:
    """Return the number of images started ahead, from the metrics of the node."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = [line for line in lines if line.startswith('maskmill_stage_seconds_count{stage="hold"}')]
    return sum(round(float(line.split()[-1])) for line in found)


def test_chunks_start_ahead_and_every_image_ends_once(installation, store, ledger, job, worker_log):
    port = ports.choose({"metrics": (0,)})["metrics"]
    settings = (
        installation.environment | SETTINGS | {"MASKMILL_METRICS__PORT": str(port), "MASKMILL_PLAN__PROCESSES": "1"}
    )
    with commands.workers(settings, worker_log):
        commands.wait_for(lambda: ledger.view(job).status is JobStatus.FINISHED, "the job to finish", 90)
        ahead = started_ahead(port)

    assert ledger.view(job).ok == IMAGES
    assert (
        len([item for item in store.list(S3Url(installation.bucket, "masks/")) if item.key.endswith(".png")]) == IMAGES
    )
    # Without images started ahead there are none. How many there are depends on how soon the next message arrives: on a
    # fast machine, where a chunk takes a tenth of a second, 9 to 30 were seen.
    assert ahead >= 3, worker_log.read_text()[-2000:]


def test_a_worker_that_stops_keeps_no_message(installation, ledger, job, worker_log):
    """Including the message that it had prefetched."""
    settings = installation.environment | SETTINGS | {"MASKMILL_PLAN__PROCESSES": "1"}
    prefix, client = installation.settings.redis.prefix, ledger.connection.client
    with commands.workers(settings, worker_log):
        commands.wait_for(lambda: ledger.view(job).ok >= CHUNK, "the first images", 60)

    view = ledger.view(job)
    assert client.hlen(redis_keys.unacked(prefix)) == 0
    assert client.hlen(redis_keys.job_keys(prefix, job).running) == 0
    queued = sum(client.llen(redis_keys.queue(prefix, name)) for name in redis_keys.QUEUES)
    out = client.zcard(redis_keys.job_keys(prefix, job).outstanding)
    assert queued == out  # every published chunk that has not ended waits for another worker
    assert 0 < view.done < IMAGES or (view.done, out) == (IMAGES, 0)
