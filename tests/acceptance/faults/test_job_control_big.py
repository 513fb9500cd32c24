"""Huge jobs: cancelling is quick, a pause survives kills, and a small job does not wait for a huge one."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterator

import pytest

from producer.submit import Submitter
from support import commands
from support.fault_injection import Faults
from support.fault_timing import FAST, IN_FLIGHT, SLACK
from support.installation import Installation, make_bucket, new_installation
from support.job_account import broker_empty, progress
from support.shared_workers import SharedWorkers, client, installation_at, own_redis
from support.small_jobs import connected_submitter, upload
from worker.contract import output_names
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobOptions, JobPolicy
from worker.contract.outputs import OutputOptions
from worker.contract.queue.dispatcher import WINDOW_PER_WORKER
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo, ObjectStore
from worker.standalone.services import Standalone

HUGE, EXISTING, CHUNK = 20_000, 100, 8
"""Images of the huge job, of which only the first exist in S3, and images in a chunk."""

IMAGE_SECONDS = 0.2


class LongListing(ObjectStore):
    """Lists `HUGE` objects in `huge/`, most of which do not exist: the size of a job is that of its manifest."""

    def list(self, folder: S3Url, **where: str) -> Iterator[ObjectInfo]:
        if folder.key != "huge/":
            return super().list(folder, **where)
        return (ObjectInfo(f"{index:05d}.png", 1000, "etag", {}) for index in range(HUGE))


@pytest.fixture(scope="module")
def workers(
    standalone: Standalone, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedWorkers]:
    folder = tmp_path_factory.mktemp("workers")
    installation = new_installation(standalone).with_settings(FAST | cache)
    make_bucket(installation)
    with SharedWorkers.start(
        installation, Faults(folder, image_seconds=IMAGE_SECONDS), folder / "worker.log"
    ) as workers:
        upload(installation, EXISTING, "huge")
        workers.upload(2 * CHUNK, "small")
        workers.upload(1, "one")
        yield workers


@pytest.fixture
def ledger(workers: SharedWorkers) -> Iterator[Ledger]:
    with Ledger(workers.installation.settings.redis) as ledger:
        yield ledger


def submit_huge(installation: Installation, policy: JobPolicy | None = None) -> str:
    """Submit the huge job; return its id."""
    with connected_submitter(installation, CHUNK) as usual, LongListing(installation.settings.s3) as store:
        submitter = Submitter(store, usual.ledger, usual.celery, CHUNK)
        source, dest = (f"s3://{installation.bucket}/{name}/" for name in ("huge", f"out-{secrets.token_hex(4)}"))
        return submitter.submit(source, dest, OutputOptions(), policy=policy).view.job


def outputs(installation: Installation, ledger: Ledger, job: str) -> set[str]:
    """Return the keys of the outputs of a job."""
    with ObjectStore(installation.settings.s3) as store:
        found = store.list(ledger.view(job).options.dest)
        return {item.key for item in found if not item.key.startswith(output_names.JOB_PREFIX)}


def test_a_huge_job_is_cancelled_within_an_image(workers, ledger):
    job = submit_huge(workers.installation)
    progress(ledger, job, 2 * CHUNK)

    ledger.cancel(job)
    begun = workers.faults.executions().total()
    # The submitter and the feeder may both have filled the window at the start.
    assert Backlog(ledger.connection).queued() <= 2 * WINDOW_PER_WORKER

    commands.wait_for(lambda: ledger.view(job).status is JobStatus.CANCELLED, "the job to be cancelled", 60)
    written = outputs(workers.installation, ledger, job)
    view = ledger.view(job)
    assert workers.faults.executions().total() <= begun + IN_FLIGHT, "images started after the cancel"
    assert view.done == HUGE and view.cancelled == HUGE - view.ok
    time.sleep(5 * IMAGE_SECONDS)
    assert outputs(workers.installation, ledger, job) == written and len(written) == view.ok, "written after the end"
    commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty", SLACK)


def test_the_cost_of_a_cancel_does_not_depend_on_the_size_of_the_job(standalone, cache, tmp_path):
    """Without steward and workers, so that every Redis command is counted."""

    def calls(images: int) -> int:
        job, options = f"job-{images}", JobOptions(source="s3://a/b/", dest=f"s3://a/{images}/")
        ledger.create(job, options)
        ledger.seal(job, total=images, chunk_images=CHUNK, size=images)
        backlog.take(job, 6, epoch=0)
        redis_client.config_resetstat()
        ledger.cancel(job)
        assert backlog.settle(job, 60)
        return sum(one["calls"] for one in redis_client.info("commandstats").values())

    with own_redis(tmp_path) as server:
        installation = installation_at(standalone, server.url, cache)
        with client(installation) as redis_client, Ledger(installation.settings.redis) as ledger:
            backlog = Backlog(ledger.connection)
            calls(10)  # loads the scripts

            assert calls(10_000_000) <= calls(1_000) <= 100


@pytest.mark.parametrize(
    "folder", [pytest.param("small", id="two chunks", marks=pytest.mark.long), pytest.param("one", id="one image")]
)
def test_a_small_job_starts_within_a_chunk_of_a_huge_one(workers, ledger, folder):
    """At most the running chunk, and one that was prefetched at the same moment, run before it."""
    first = submit_huge(workers.installation)
    try:
        progress(ledger, first, 2 * CHUNK)

        second = workers.submit(workers.uploaded[folder], chunk=CHUNK, folder=folder)
        before = ledger.view(first).done
        commands.wait_for(lambda: ledger.view(second).started_at, "the small job to start", 60)
        between = ledger.view(first).done - before

        assert between <= 2 * CHUNK, f"{between} images of the huge job came first"
        commands.wait_for(lambda: ledger.view(second).ended, "the small job to end", 60)
        assert not ledger.view(first).ended
    finally:
        ledger.cancel(first)
        commands.wait_for(lambda: ledger.view(first).ended, "the end of the huge job", 60)
    assert workers.settle(second).view.ok == workers.uploaded[folder]


def test_a_pause_survives_kills_and_nothing_is_lost(workers, ledger):
    job = workers.submit(40, chunk=CHUNK, folder="paused")
    progress(ledger, job, 3)
    ledger.pause(job)
    workers.node.model_processes()[0].kill()  # it may still hold a chunk
    time.sleep(1)
    paused_at = ledger.view(job).done

    consumer = workers.node.consumers()[0]
    consumer.kill()
    commands.wait_for(lambda: [one for one in workers.node.consumers() if one.pid != consumer.pid], "a new worker", 60)
    assert ledger.view(job).done == paused_at < 40
    commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty while the job is paused", 60)

    ledger.resume(job)
    progress(ledger, job, paused_at + 1)
    # A resumed chunk: its copy in the queue must not pass for a finished one.
    workers.node.model_processes()[0].send_signal(signal.SIGKILL)

    account = workers.settle(job)
    assert account.view.ok == 40, "a healthy chunk was taken for poison"
