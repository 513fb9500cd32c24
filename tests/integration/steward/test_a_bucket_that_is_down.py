"""A bucket that is down holds up its own jobs only, and one chunk at a time finds out whether it is back.

The test is the worker: it takes each message from the real queue and runs it through the real chunk runner, over a
server whose bucket `away` fails. Nothing here waits for time to pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
from celery.exceptions import Ignore, Reject

from support.fakes import FakeNetwork
from support.jobs import HERE, message, submit
from support.misbehaving_s3 import MisbehavingS3, Mode, Refusal
from support.scheduler_harness import SchedulerHarness
from support.work_items import JPEG, LIMITS
from worker.contract import redis_keys
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger import chunks as ledger_chunks
from worker.contract.ledger.chunks import ChunkLedger, Verdict
from worker.contract.storage.s3 import ObjectStore
from worker.runner.chunks import ChunkRunner, Identity
from worker.runner.parent_channel import ParentChannel
from worker.runner.pipeline import Pipeline

DOWN = [Refusal(503, "SlowDown", bucket="away"), Refusal(500, "InternalError", bucket="away")]
CHUNKS = 12


@dataclass
class OneWorker:
    """Steward and one worker process over the misbehaving server."""

    server: MisbehavingS3
    world: SchedulerHarness
    runner: ChunkRunner
    pauses: list[float]
    delivered: list[str] = field(default_factory=list)

    def submit(self, job: str, bucket: str) -> JobView:
        """Submit a job of `CHUNKS` chunks of one image; no chunk is published."""
        for index in range(CHUNKS):
            self.server.put(f"{bucket}/in/{index}.jpg", JPEG)
        return submit(self.world.store, self.world.ledger, bucket, CHUNKS, job=job, chunk_images=1, dest=job)

    def step(self) -> bool:
        """Let the steward publish, and run the next message; return whether there was one."""
        self.world.feeder.tick()
        client, prefix = self.world.ledger.connection.client, self.world.ledger.connection.prefix
        entry = next(filter(None, (client.rpop(redis_keys.queue(prefix, name)) for name in redis_keys.QUEUES)), None)
        if entry is None:
            return False
        headers = json.loads(entry)["headers"]
        job, epoch, chunk = redis_keys.parse_task_id(headers["id"])
        assert epoch == 0
        self.delivered.append(job)
        try:
            self.runner.run(message(self.world.ledger.view(job), chunk).model_dump(mode="json"))
        except Ignore:
            pass
        except Reject:  # back to the end of the queue, as kombu does it
            client.lpush(redis_keys.queue(prefix, redis_keys.QUEUE), entry)
        return True

    def steps(self, limit: int = 8 * CHUNKS) -> None:
        """Work until the queue stays empty, or `limit` messages were run."""
        for _ in range(limit):
            if not self.step():
                return

    def wake(self, *jobs: str) -> None:
        """Let the time pass until S3 is tried again for these jobs."""
        for job in jobs:
            record = redis_keys.job_keys(self.world.ledger.connection.prefix, job).record
            client = self.world.ledger.connection.client
            client.hset(record, "store_retry_at", client.time()[0] - 1)

    def requests(self, bucket: str) -> int:
        """Return how many requests for inputs of a bucket the server got."""
        return sum(place.startswith(f"{bucket}/in/") for _, place in self.server.requests)


@pytest.fixture
def worker(world: SchedulerHarness, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneWorker]:
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(ledger_chunks, "STORE_PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(ledger_chunks, "MAX_STORE_PAUSE_SECONDS", 2 * 3600.0)
    pauses: list[float] = []
    with MisbehavingS3(Mode()) as server, ObjectStore(server.settings()) as store:
        pipeline = Pipeline(store, FakeNetwork(), "digest", LIMITS, in_flight=2)
        runner = ChunkRunner(
            ChunkLedger(world.ledger.connection), pipeline, Identity(HERE, "m", 1), ParentChannel(), pause=pauses.append
        )
        yield OneWorker(server, replace(world, store=store), runner, pauses)
        pipeline.close()


@pytest.mark.parametrize("refusal", DOWN)
def test_another_job_goes_on_as_if_it_were_alone(worker, refusal):
    away = worker.submit("away", "away")
    here = worker.submit("here", "here")
    worker.step()  # a chunk of each job is in the queue
    worker.server.mode.refusals = [replace(refusal, part="/", methods=("GET",)), replace(refusal, methods=("PUT",))]

    worker.steps()

    assert worker.world.ledger.view(here.job).ok == CHUNKS
    assert worker.pauses == []
    tried = worker.delivered.count("away")
    assert tried <= 4, "the chunks that were published before are handed back unread, and no others follow"
    held = worker.world.ledger.view(away.job)
    assert (held.failed, held.store_bucket, held.wait_for != "") == (0, "away", True)
    [job] = [job for job in worker.world.backlog.active() if job.view.job == "away"]
    assert (job.outstanding, job.waiting) == (0, CHUNKS - held.ok)  # nothing of it is left in Redis but bits


def test_one_chunk_tries_and_the_rest_follows_when_the_bucket_is_back(worker):
    worker.submit("away", "away")
    worker.server.mode.refusals = [Refusal(503, "SlowDown", bucket="away", part="in/")]
    worker.steps()
    first = worker.requests("away")
    waits = [worker.world.backlog.active()[0].store_wait]

    for _ in range(3):
        worker.wake("away")
        worker.steps()
        waits.append(worker.world.backlog.active()[0].store_wait)
    tried = worker.requests("away") - first
    worker.server.mode.refusals = []
    worker.wake("away")
    worker.steps()

    assert tried <= 3 * first, "one chunk at a time"
    assert waits[0] < 3700 < waits[1] <= 7200 and waits[3] <= 7200  # the pause grows, up to the longest
    ended = worker.world.ledger.view("away")
    assert (ended.status, ended.ok, ended.store_retry_at) == (JobStatus.CLOSING, CHUNKS, None)


def test_jobs_of_one_bucket_share_the_tries(worker):
    for job in ("one", "two", "three"):
        worker.submit(job, "away")
    worker.server.mode.refusals = [Refusal(503, "SlowDown", bucket="away", part="in/")]
    worker.steps()
    held = [job.view.job for job in worker.world.backlog.active() if job.view.store_retry_at is not None]
    before = len(worker.delivered)

    worker.wake(*held)
    worker.steps()

    assert len(worker.delivered) == before + 1
    worker.server.mode.refusals = []
    worker.wake(*held)
    worker.steps()
    worker.wake(*(job for job in held if worker.world.ledger.view(job).store_retry_at))
    worker.steps()
    assert {worker.world.ledger.view(job).ok for job in ("one", "two", "three")} == {CHUNKS}


def test_a_message_that_arrives_too_early_is_handed_back_and_blames_no_chunk(world):
    view = world.submit(6, skip_existing=False)
    world.backlog.take("job", 2, epoch=0)
    assert world.chunks.options_if_unstarted(message(view, 1)) is not None
    held = world.chunks.start(message(view, 0), HERE)
    held.store_failure("503", bucket="away")

    early = world.chunks.start(message(view, 1), HERE)
    assert not held.release(model="m", core_seconds=1.0, blameless=True, give_back=True)

    assert early.verdict is Verdict.WAITING
    assert world.chunks.options_if_unstarted(message(view, 1)) is None  # none of its images are fetched ahead
    [job] = world.backlog.active()
    assert (job.outstanding, job.returned) == (0, 2)
    assert job.store_wait > 0
    keys = redis_keys.job_keys(world.ledger.connection.prefix, "job")
    assert world.ledger.connection.client.hvals(keys.attempts) == ["0"]


def test_workers_that_fail_at_the_same_time_count_once(world, monkeypatch):
    monkeypatch.setattr(ledger_chunks, "STORE_PAUSE_SECONDS", 600.0)
    monkeypatch.setattr(ledger_chunks, "MAX_STORE_PAUSE_SECONDS", 1e6)
    view = world.submit(9)
    world.backlog.take("job", 3, epoch=0)
    held = [world.chunks.start(message(view, chunk), f"worker-{chunk}@here") for chunk in range(3)]

    for lease in held:
        lease.store_failure("503", bucket="away")

    [job] = world.backlog.active()
    assert 0 < job.store_wait <= 600


@pytest.mark.parametrize(("spent", "least", "most"), [(1.0, 0, 5), (40.0, 30, 80), (900.0, 110, 120)])
def test_a_try_that_took_long_is_followed_by_a_long_pause(world, spent, least, most):
    """A server that hangs must not take more of a process's time than other jobs get."""
    view = world.submit(3)
    world.backlog.take("job", 1, epoch=0)

    world.chunks.start(message(view, 0), HERE).store_failure("no answer", bucket="away", spent=spent)

    [job] = world.backlog.active()
    assert least < job.store_wait <= most
