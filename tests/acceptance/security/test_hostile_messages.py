"""Whoever can put messages into the queue, with a producer's rights, gets neither code run nor workers stopped."""

from __future__ import annotations

import time

from support import commands
from support.hostile import DROPPED, REFUSED, forged
from support.redis_users import ADMIN, PREFIX
from worker.contract import redis_keys
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobOptions
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectInfo, ObjectStore


def push(secured, *messages: str) -> None:
    with Ledger(secured.settings(secured.producer).redis) as ledger:
        ledger.connection.client.lpush(f"{PREFIX}{redis_keys.QUEUE}", *messages)


def processes(secured) -> set[int]:
    node = secured.node
    return {process.pid for process in [*node.parents(), *node.children(), *node.stewards()]}


def said_since(secured, mark: int) -> str:
    return secured.worker_log.read_text()[mark:]


def test_hostile_messages_cost_a_line_in_the_log_and_nothing_else(secured, tmp_path):
    canary = tmp_path / "canary"
    before, mark = processes(secured), len(secured.worker_log.read_text())

    push(secured, *(make(canary) for make in (DROPPED | REFUSED).values()))
    secured.submit("after-hostile", "--force")

    with secured.redis.client(ADMIN) as admin:
        commands.wait_for(
            lambda: admin.llen(f"{PREFIX}{redis_keys.QUEUE}") + admin.hlen(f"{PREFIX}unacked") == 0, "the end"
        )
    log = said_since(secured, mark)
    assert processes(secured) == before, log[-5000:]
    assert log.count("event=message_refused") == len(DROPPED)
    assert not canary.exists()
    assert not [word for word in ("Unrecoverable", "event=process_exited", "event=job_record_invalid") if word in log]


def test_a_forged_job_cannot_leave_the_allow_list(secured):
    """Its record says where to read and write; the list of the node says where this is allowed."""
    private, out = secured.url("private"), secured.url("out/forged")
    places = {
        "reads": (private, out, "payroll.png"),
        "reads by a detour": (secured.url("in/good"), out, "../private/payroll.png"),
        "writes": (secured.url("in/good"), private, "0.png"),
        "writes by a detour": (secured.url("in/good"), f"{secured.url('out')}../private/", "0.png"),
    }
    config = secured.settings(secured.producer)
    with Ledger(config.redis) as ledger, ObjectStore(config.s3) as store:
        before = {(item.key, item.etag) for item in store.list(S3Url(secured.bucket, "private/"))}
        jobs = []
        for number, (source, dest, key) in enumerate(places.values()):
            job = f"forged-{number}-{time.monotonic_ns()}"
            if dest == out:  # else the feeder of the nodes, which may not read there, leaves the job alone
                writer = manifest.Writer(store, S3Url.parse(dest), job)
                writer.add(ObjectInfo(key, 1, "etag", {}))
                writer.close()
            ledger.create(job, JobOptions(source=source, dest=dest))
            assert ledger.seal(job, total=1, chunk_images=1, size=1)
            push(secured, forged(job, key))
            jobs.append(job)
        commands.wait_for(lambda: all(ledger.view(job).done for job in jobs), "an outcome of each", 60)
        codes = {name: ledger.view(job).codes for name, job in zip(places, jobs, strict=True)}
        after = {(item.key, item.etag) for item in store.list(S3Url(secured.bucket, "private/"))}
        outputs = [
            item.key for item in store.list(S3Url(secured.bucket, "out/forged/")) if "_maskmill/" not in item.key
        ]
        for job in jobs:
            if ledger.view(job).status not in (JobStatus.FINISHED, JobStatus.CANCELLED):
                ledger.forget(job)

    assert codes == {name: {"access_denied": 1} for name in places}
    assert after == before
    assert outputs == []
