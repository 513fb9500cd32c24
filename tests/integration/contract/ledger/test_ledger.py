"""The ledger's scripts against a real server."""

from __future__ import annotations

import pytest

from support.jobs import lease
from worker.contract import redis_keys
from worker.contract.errors import AccessDenied, BadMessage, BrokerUnavailable, JobNotFound
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.chunks import MAX_FAILURES, Verdict
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind
from worker.contract.settings import RedisSettings

OPTIONS = JobOptions(source="s3://in/", dest="s3://out/")
K = 3
WORKER = "worker-0@here"


def chunk(number: int, total: int, job: str = "job") -> ChunkMessage:
    first = number * K
    return ChunkMessage(
        job=job, chunk=number, start=first, keys=tuple(f"{i}.jpg" for i in range(first, min(first + K, total)))
    )


def outcome(index: int, kind: OutcomeKind = OutcomeKind.OK) -> Outcome:
    return Outcome(index=index, key=f"{index}.jpg", kind=kind, code="" if kind is OutcomeKind.OK else "undecodable")


def running(ledger: Ledger, total: int = 7, job: str = "job") -> None:
    ledger.create(job, OPTIONS)
    assert ledger.seal(job, total=total, chunk_images=K, size=100)


def test_a_job_runs_from_listing_to_finished(ledger, chunk_ledger):
    running(ledger, total=4)

    assert chunk_ledger.start(chunk(0, 4), WORKER).verdict is Verdict.RUN
    lease(ledger, chunk(0, 4)).record([outcome(0), outcome(1), outcome(2, OutcomeKind.FAILED)])
    before = ledger.view("job")
    last = lease(ledger, chunk(1, 4)).record([outcome(3)])
    after = ledger.view("job")

    assert (before.status, before.done, before.failed) == (JobStatus.RUNNING, 3, 1)
    assert last.completed and (after.status, after.ok, after.failed) == (JobStatus.CLOSING, 3, 1)
    assert after.completed_at and after.started_at and after.options == OPTIONS and after.codes == {"undecodable": 1}
    assert Backlog(ledger.connection).close("job", 0, 60) and ledger.view("job").status is JobStatus.FINISHED
    assert ledger.failures("job") == [{"kind": "failed", "key": "2.jpg", "code": "undecodable", "message": ""}]


def test_the_lease_of_a_redelivered_chunk_has_the_outcomes_so_far(ledger, chunk_ledger):
    running(ledger)
    chunk_ledger.start(chunk(0, 7), WORKER)
    lease(ledger, chunk(0, 7)).record([outcome(1)])

    again = chunk_ledger.start(chunk(0, 7), WORKER)

    assert again.verdict is Verdict.RUN
    assert again.outcomes == (None, OutcomeKind.OK, None)


def test_a_complete_chunk_is_not_run_again(ledger, chunk_ledger):
    running(ledger)
    lease(ledger, chunk(0, 7)).record([outcome(0), outcome(1), outcome(2)])

    assert chunk_ledger.start(chunk(0, 7), WORKER).verdict is Verdict.DONE


def test_a_chunk_without_progress_runs_one_by_one_and_its_image_dies(ledger, chunk_ledger):
    running(ledger)

    starts = [chunk_ledger.start(chunk(0, 7), WORKER) for _ in range(3)]
    for _ in range(3):
        assert not starts[-1].dead
        lease(ledger, chunk(0, 7)).begin(1)
        chunk_ledger.record_death(chunk(0, 7), WORKER, "killed by signal 11 (SIGSEGV)")
        starts.append(chunk_ledger.start(chunk(0, 7), WORKER))

    assert [start.verdict for start in starts] == [Verdict.RUN] * 6
    assert [start.one_by_one for start in starts] == [False, False, True, True, True, True]
    assert (starts[-1].dead, starts[-1].death_reason) == ((1,), "killed by signal 11 (SIGSEGV)")


def test_progress_and_a_blameless_release_give_attempts_back(ledger, chunk_ledger):
    running(ledger)
    for _ in range(2):
        chunk_ledger.start(chunk(0, 7), WORKER)
    lease(ledger, chunk(0, 7)).record([outcome(0)])

    for _ in range(5):
        assert not chunk_ledger.start(chunk(0, 7), WORKER).one_by_one
        assert lease(ledger, chunk(0, 7)).release(model="m", core_seconds=1.5, blameless=True)
    assert ledger.view("job").core_seconds == 7.5
    assert ledger.view("job").models == {"m": 5}


def test_a_chunk_whose_worker_was_killed_says_so_at_its_next_start(ledger, chunk_ledger):
    running(ledger)

    assert not chunk_ledger.start(chunk(0, 7), WORKER).started_before
    lease(ledger, chunk(0, 7)).record([outcome(0)])
    killed = chunk_ledger.start(chunk(0, 7), WORKER)
    assert killed.started_before
    killed.release(model="m", core_seconds=1.0, blameless=True)
    killed.release(model="m", core_seconds=1.0, blameless=True)
    assert chunk_ledger.start(chunk(0, 7), WORKER).started_before


def test_a_chunk_that_another_worker_runs_is_not_run_twice(ledger, chunk_ledger):
    running(ledger)
    chunk_ledger.start(chunk(0, 7), WORKER)

    assert chunk_ledger.start(chunk(0, 7), "another").verdict is Verdict.BUSY
    chunk_ledger.record_death(chunk(0, 7), WORKER, "killed")
    assert chunk_ledger.start(chunk(0, 7), "another").verdict is Verdict.RUN


def test_a_cancelled_and_an_unknown_job_are_dropped(ledger, chunk_ledger):
    running(ledger)
    ledger.cancel("job", "no reason")

    assert chunk_ledger.start(chunk(0, 7), WORKER).verdict is Verdict.CANCELLED
    assert chunk_ledger.start(chunk(0, 7, job="other"), WORKER).verdict is Verdict.UNKNOWN
    assert not lease(ledger, chunk(0, 7, job="other")).record([outcome(0)]).proceed
    assert ledger.view("job").reason == "no reason"
    with pytest.raises(JobNotFound, match="producer list"):
        ledger.view("other")


def test_a_job_of_a_newer_version_is_refused_by_name(ledger, chunk_ledger):
    running(ledger)
    newer = OPTIONS.model_dump_json().replace('"mask"', '"hologram"')
    ledger.connection.client.hset(redis_keys.job(ledger.connection.prefix, "job"), "options", newer)

    with pytest.raises(BadMessage, match=r"outputs.*upgrade the workers"):
        chunk_ledger.start(chunk(0, 7), WORKER)


def test_failures_kept_are_bounded(ledger):
    total = MAX_FAILURES + 40
    ledger.create("job", OPTIONS)
    ledger.seal("job", total=total, chunk_images=64, size=1)
    for first in range(0, total, 64):
        keys = tuple(str(i) for i in range(first, min(first + 64, total)))
        message = ChunkMessage(job="job", chunk=first // 64, start=first, keys=keys)
        lease(ledger, message).record([outcome(first + i, OutcomeKind.FAILED) for i in range(len(keys))])

    assert ledger.view("job").failed == total
    assert len(ledger.failures("job")) == MAX_FAILURES


def test_jobs_are_listed_newest_first(ledger):
    for job in ("a", "b", "c"):
        ledger.create(job, OPTIONS)

    assert [view.job for view in ledger.jobs(2)] == ["c", "b"]


def test_a_wrong_password_and_a_dead_port_are_told_apart(standalone):
    right = RedisSettings(url=standalone.redis_url)
    with Ledger(right) as ledger, pytest.raises(AccessDenied, match="MASKMILL_REDIS__PASSWORD"):
        ledger.connection.check()
    with (
        Ledger(RedisSettings(url="redis://127.0.0.1:1/0")) as ledger,
        pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"),
    ):
        ledger.connection.check()
