"""A client with a producer's rights can neither run code on workers nor stop them by messages in the queue."""

from __future__ import annotations

import contextlib
import itertools
import os
import time

import pytest
import redis

from support import commands
from support.crooked import TOLERATED, UNREADABLE
from support.hostile import DROPPED, REFUSED, forged, generated
from support.installation import load_settings
from support.redis_users import ADMIN, PREFIX
from worker.contract import redis_keys
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobOptions
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectInfo, ObjectStore

GENERATED = int(os.environ.get("HOSTILE_MESSAGES", "1000"))
"""Messages of the generated test; set it higher for a thorough run."""


def push(secured, *messages: str) -> None:
    """Put messages into the queue as the producer's user."""
    with Ledger(load_settings(secured.producer).redis) as ledger:
        ledger.connection.client.lpush(f"{PREFIX}{redis_keys.QUEUE}", *messages)


def test_hostile_messages_only_cost_a_line_in_the_log(secured, tmp_path):
    canary = tmp_path / "canary"
    before, log_size = secured.node.pids(), len(secured.worker_log.read_text())

    push(secured, *(make(canary) for make in (DROPPED | REFUSED).values()))
    secured.submit("after-hostile", "--force")

    queue_is_empty(secured)
    log = secured.worker_log.read_text()[log_size:]
    assert secured.node.pids() == before, log[-5000:]
    assert len(DROPPED) <= log.count("event=message_refused") <= len(DROPPED | REFUSED)
    assert not canary.exists()
    words = "Unrecoverable", "Traceback", "event=process_exited", "event=job_record_invalid"
    assert not [word for word in words if word in log]


def test_generated_messages_end_no_process_and_do_not_come_back(secured):
    before, log_size = secured.node.pids(), len(secured.worker_log.read_text())
    messages = generated(GENERATED, seed=20)

    while some := list(itertools.islice(messages, 500)):
        push(secured, *some)
        queue_is_empty(secured)
    secured.submit("after-generated", "--force")

    log = secured.worker_log.read_text()[log_size:]
    assert secured.node.pids() == before, log[-5000:]
    assert log.count("event=message_refused") > GENERATED // 3, "most are refused, or this test tests little"
    assert not [word for word in ("Unrecoverable", "event=process_exited", "Traceback") if word in log], log[-5000:]


@pytest.mark.timeout(300)
def test_chunks_of_crooked_records_only_cost_lines_in_the_log(secured):
    """A real worker receives a chunk of a job of each kind, before a steward may have put the job aside."""
    before, log_size = secured.node.pids(), len(secured.worker_log.read_text())
    with Ledger(load_settings(secured.producer).redis) as ledger:
        connection, jobs = ledger.connection, []
        for number, change in enumerate((UNREADABLE | TOLERATED).values()):
            job = f"crooked-{number}"
            jobs.append(job)
            ledger.create(job, JobOptions(source=secured.url("in/good"), dest=secured.url(f"out/{job}")))
            assert ledger.seal(job, total=6, chunk_images=3, size=30)
            with contextlib.suppress(redis.exceptions.ResponseError):  # some changes need more rights
                change(connection.client, redis_keys.job_keys(connection.prefix, job))
            push(secured, forged(job, "0.png", "1.png", "2.png"))
        queue_is_empty(secured)
        secured.submit("after-crooked", "--force")
        for job in jobs:
            ledger.forget(job)

    log = secured.worker_log.read_text()[log_size:]
    assert secured.node.pids() == before, log[-5000:]
    assert log.count("event=job_record_invalid") > len(UNREADABLE) // 2, "or this test tests little"
    assert not [word for word in ("Unrecoverable", "event=process_exited", "Traceback") if word in log], log[-5000:]


def queue_is_empty(secured) -> None:
    """Wait until no message is queued or being worked on."""
    with secured.redis.client(ADMIN) as admin:
        commands.wait_for(
            lambda: admin.llen(f"{PREFIX}{redis_keys.QUEUE}") + admin.hlen(f"{PREFIX}unacked") == 0,
            "the queue to be empty",
            120,
        )


def test_a_forged_job_cannot_leave_the_allow_list(secured):
    """The job record names source and destination; the allow-list of the node decides what is allowed."""
    private, out = secured.url("private"), secured.url("out/forged")
    attempts = {
        "reads": (private, out, "payroll.png"),
        "reads through ..": (secured.url("in/good"), out, "../private/payroll.png"),
        "writes": (secured.url("in/good"), private, "0.png"),
        "writes through ..": (secured.url("in/good"), f"{secured.url('out')}../private/", "0.png"),
    }
    config = load_settings(secured.producer)
    with Ledger(config.redis) as ledger, ObjectStore(config.s3) as store:
        before = {(item.key, item.etag) for item in store.list(S3Url(secured.bucket, "private/"))}
        jobs = []
        for number, (source, dest, key) in enumerate(attempts.values()):
            job = f"forged-{number}-{time.monotonic_ns()}"
            if dest == out:  # elsewhere the feeder may not read, so it leaves the job alone
                writer = manifest.Writer(store, S3Url.parse(dest), job)
                writer.add(ObjectInfo(key, 1, "etag", {}))
                writer.close()
            ledger.create(job, JobOptions(source=source, dest=dest))
            assert ledger.seal(job, total=1, chunk_images=1, size=1)
            push(secured, forged(job, key))
            jobs.append(job)
        commands.wait_for(lambda: all(ledger.view(job).done for job in jobs), "an outcome for each job", 60)
        views = {name: ledger.view(job) for name, job in zip(attempts, jobs, strict=True)}
        after = {(item.key, item.etag) for item in store.list(S3Url(secured.bucket, "private/"))}
        outputs = [
            item.key for item in store.list(S3Url(secured.bucket, "out/forged/")) if "_maskmill/" not in item.key
        ]
        for job in jobs:
            if ledger.view(job).status not in (JobStatus.FINISHED, JobStatus.CANCELLED):
                ledger.forget(job)

    # The worker refuses the image, or before that the steward ends the job, whose destination it may not write.
    for name, view in views.items():
        ended_by_steward = name.startswith("writes") and view.cancelled == 1 and "allow-list" in view.reason
        assert view.codes == {"access_denied": 1} or ended_by_steward, (name, view)
    assert after == before
    assert outputs == []
