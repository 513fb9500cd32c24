"""Jobs too big to wait for: cancelled at once, paused under kills, and no small job has to wait behind one."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Iterator

import pytest

from producer.submit import Submitter
from support import commands
from support.faults import FAST, IN_FLIGHT, SLACK, Faults, broker_empty, progress
from support.shared_workers import Mistreated, client, connected, installation_at, own_redis, placed, upload
from support.stack import Installation, make_bucket, new_installation
from worker.contract import redis_keys
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobOptions, JobPolicy
from worker.contract.outputs import OutputOptions
from worker.contract.queue.dispatcher import WINDOW_PER_WORKER
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectInfo, ObjectStore
from worker.standalone.services import Standalone

HUGE, THERE, CHUNK = 20_000, 100, 8
"""Images of the huge job; the first ones exist, so that there is something to write."""

IMAGE_SECONDS = 0.2


class Imagined(ObjectStore):
    """Its listing goes on long after the objects end: a job is as big as its manifest says."""

    def list(self, folder: S3Url, **where: str) -> Iterator[ObjectInfo]:
        if folder.key != "huge/":
            return super().list(folder, **where)
        return (ObjectInfo(f"{index:05d}.png", 1000, "etag", {}) for index in range(HUGE))


@pytest.fixture(scope="module")
def under(
    standalone: Standalone, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mistreated]:
    folder = tmp_path_factory.mktemp("workers")
    installation = placed(new_installation(standalone), FAST | cache)
    make_bucket(installation)
    with Mistreated.start(installation, Faults(folder, image_seconds=IMAGE_SECONDS), folder / "worker.log") as under:
        upload(installation, THERE, "huge")
        under.upload(2 * CHUNK, "small")
        under.upload(1, "one")
        yield under


@pytest.fixture
def ledger(under: Mistreated) -> Iterator[Ledger]:
    with Ledger(under.installation.settings.redis) as ledger:
        yield ledger


def huge(installation: Installation, policy: JobPolicy | None = None) -> str:
    with connected(installation, CHUNK) as usual, Imagined(installation.settings.s3) as store:
        submitter = Submitter(store, usual.ledger, usual.celery, CHUNK)
        source, dest = (f"s3://{installation.bucket}/{name}/" for name in ("huge", f"out-{secrets.token_hex(4)}"))
        return submitter.submit(source, dest, OutputOptions(), policy=policy).view.job


def outputs(installation: Installation, ledger: Ledger, job: str) -> set[str]:
    with ObjectStore(installation.settings.s3) as store:
        found = store.list(ledger.view(job).options.dest)
        return {item.key for item in found if not item.key.startswith(redis_keys.JOB_PREFIX)}


def test_a_huge_job_is_cancelled_within_an_image(under, ledger):
    job = huge(under.installation)
    progress(ledger, job, CHUNK)

    ledger.cancel(job)
    begun = under.faults.executions().total()
    assert Backlog(ledger.link).queued() <= WINDOW_PER_WORKER

    commands.wait_for(lambda: ledger.view(job).status is JobStatus.CANCELLED, "the job to be cancelled", 60)
    written = outputs(under.installation, ledger, job)
    view = ledger.view(job)
    assert under.faults.executions().total() <= begun + IN_FLIGHT, "images were begun after the cancel"
    assert view.done == HUGE and view.cancelled == HUGE - view.ok
    time.sleep(5 * IMAGE_SECONDS)
    assert outputs(under.installation, ledger, job) == written and len(written) == view.ok, "written after the end"
    commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty", SLACK)


def test_cancelling_costs_redis_the_same_whatever_the_size_of_the_job(standalone, cache, tmp_path):
    """No steward and no worker here: every command is counted."""

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
            backlog = Backlog(ledger.link)
            calls(10)  # loads the scripts

            assert calls(10_000_000) <= calls(1_000) <= 100


@pytest.mark.parametrize(
    "folder", [pytest.param("small", id="two chunks", marks=pytest.mark.long), pytest.param("one", id="one image")]
)
def test_a_small_job_starts_within_a_chunk_of_a_huge_one(under, ledger, folder):
    """At most the chunk that is being run, and one that was fetched in the same moment, come before it."""
    first = huge(under.installation)
    try:
        progress(ledger, first, 2 * CHUNK)
        before = ledger.view(first).done

        second = under.job(under.uploaded[folder], chunk=CHUNK, folder=folder)
        commands.wait_for(lambda: ledger.view(second).started_at, "the small job to start", 60)
        between = ledger.view(first).done - before

        assert between <= 2 * CHUNK, f"{between} images of the huge job came first"
        commands.wait_for(lambda: ledger.view(second).ended, "the small job to end", 60)
        assert not ledger.view(first).ended
    finally:
        ledger.cancel(first)
        commands.wait_for(lambda: ledger.view(first).ended, "the end of the huge job", 60)
    assert under.settle(second).view.ok == under.uploaded[folder]


def test_a_pause_survives_kills_and_nothing_is_lost(under, ledger):
    job = under.job(40, chunk=CHUNK, folder="paused")
    progress(ledger, job, 3)
    ledger.pause(job)
    under.node.children()[0].kill()  # a chunk may still be in its hands
    time.sleep(1)
    paused_at = ledger.view(job).done

    parent = under.node.parents()[0]
    parent.kill()
    commands.wait_for(lambda: [one for one in under.node.parents() if one.pid != parent.pid], "a new worker", 60)
    assert ledger.view(job).done == paused_at < 40
    commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty while the job is paused", 60)

    ledger.resume(job)
    progress(ledger, job, paused_at + 1)
    under.node.children()[0].send_signal(signal.SIGKILL)  # a resumed chunk: its copy must not be taken for a done one

    account = under.settle(job)
    assert account.view.ok == 40, "a healthy chunk was taken for poison"
