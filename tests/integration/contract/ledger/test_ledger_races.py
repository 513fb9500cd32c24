"""One test for each way in which two parties once came into each other's way. `test_ledger_model` looks for more."""

from __future__ import annotations

import pytest

from worker.contract import redis_keys
from worker.contract.errors import JobStateError
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger, Verdict
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy, Outcome, OutcomeKind

K = 3
OK, FAILED = OutcomeKind.OK, OutcomeKind.FAILED
HERE, THERE = "worker-0@here", "worker-0@there"


@pytest.fixture
def backlog(ledger) -> Backlog:
    return Backlog(ledger.link)


def running(ledger: Ledger, total: int, job: str = "job", dest: str = "s3://out/", **policy) -> None:
    ledger.create(job, JobOptions(source="s3://in/", dest=dest), JobPolicy(**policy))
    assert ledger.seal(job, total=total, chunk_images=K, size=100)


def chunk(number: int, total: int, epoch: int = 0) -> ChunkMessage:
    first = number * K
    keys = tuple(f"{i}.jpg" for i in range(first, min(first + K, total)))
    return ChunkMessage(job="job", epoch=epoch, chunk=number, start=first, keys=keys)


def outcome(index: int, kind: OutcomeKind = OK, code: str = "undecodable") -> Outcome:
    return Outcome(index=index, key=f"{index}.jpg", kind=kind, code="" if kind is OK else code)


def let_go(ledger: Ledger, message: ChunkMessage, worker: str) -> bool:
    return ledger.release(message, worker, model="m", core_seconds=1, blameless=True)


def test_a_copy_of_a_message_does_not_close_a_job_over_the_head_of_who_works(ledger, backlog):
    running(ledger, 6)
    backlog.take("job", 1, epoch=0)
    ledger.start(chunk(0, 6), HERE)
    ledger.cancel("job")

    assert ledger.start(chunk(0, 6), THERE).verdict is Verdict.BUSY
    assert not let_go(ledger, chunk(0, 6), THERE)
    assert not backlog.settle("job", 60)
    ledger.record(chunk(0, 6), [outcome(0)])
    let_go(ledger, chunk(0, 6), HERE)
    assert backlog.settle("job", 60)
    assert (ledger.view("job").ok, ledger.view("job").cancelled) == (1, 5)


def test_a_copy_of_a_message_of_a_paused_job_leaves_the_chunk_with_who_has_it(ledger, backlog):
    running(ledger, 6)
    backlog.take("job", 1, epoch=0)
    ledger.start(chunk(0, 6), HERE)
    ledger.pause("job")

    ledger.start(chunk(0, 6), THERE)
    ledger.resume("job")

    assert backlog.take("job", 1, epoch=0) == [1]
    assert ledger.record(chunk(0, 6), [outcome(0)]).go_on


def test_who_was_replaced_is_told_to_stop_and_what_it_did_counts(ledger, installation):
    running(ledger, 6)
    ledger.start(chunk(0, 6), HERE)
    with Ledger(installation.settings.redis, silence_seconds=0) as impatient:
        assert impatient.start(chunk(0, 6), THERE).verdict is Verdict.RUN

    assert not ledger.record(chunk(0, 6), [outcome(0)], HERE).go_on
    assert ledger.record(chunk(0, 6), [outcome(1)], THERE).go_on
    assert ledger.view("job").ok == 2


def test_a_straggler_of_an_earlier_epoch_changes_no_count(ledger, backlog):
    running(ledger, 6)
    ledger.start(chunk(0, 6), HERE)
    ledger.record(chunk(0, 6), [outcome(0, FAILED)])
    ledger.start(chunk(1, 6), THERE)
    ledger.cancel("job")
    backlog.settle("job", 0)
    backlog.close("job", 0, 60)
    ledger.reopen("job", failed=True, cancelled=False)

    ledger.record(chunk(1, 6), [outcome(3)])

    view = ledger.view("job")
    assert (view.ok, view.cancelled, view.done) == (0, 5, 5)
    ledger.record(chunk(0, 6, epoch=1), [outcome(0)])
    assert ledger.view("job").status is JobStatus.CLOSING
    assert ledger.view("job").done == 6


def test_who_lost_a_careful_chunk_names_no_suspect(ledger, backlog):
    running(ledger, 3)
    for _ in range(3):
        assert ledger.start(chunk(0, 3), HERE).verdict is Verdict.RUN
    ledger.cancel("job")
    backlog.settle("job", 0)
    backlog.close("job", 0, 60)

    assert not ledger.begin(chunk(0, 3), HERE, 1)
    assert ledger.link.client.exists(redis_keys.job_keys(ledger.link.prefix, "job").suspects) == 0


def test_a_failure_that_turned_out_well_is_no_failure_any_more(ledger):
    running(ledger, 6)
    ledger.record(chunk(0, 6), [outcome(0, FAILED), outcome(1, FAILED, "too_large"), outcome(2, FAILED)])

    ledger.record(chunk(0, 6), [outcome(1), outcome(2)])

    view = ledger.view("job")
    assert (view.ok, view.failed, view.codes) == (2, 1, {"undecodable": 1})
    assert [failure["key"] for failure in ledger.failures("job")] == ["0.jpg"]


def test_sealing_twice_is_sealing_once(ledger):
    running(ledger, 6)

    assert ledger.seal("job", total=6, chunk_images=K, size=100)
    assert ledger.view("job").status is JobStatus.RUNNING


def test_a_submission_that_fails_after_sealing_cancels_properly(ledger, backlog):
    running(ledger, 6)
    ledger.start(chunk(0, 6), HERE)

    ledger.abandon("job", "not submitted: Redis went away")

    assert ledger.view("job").status is JobStatus.STOPPING
    ledger.record(chunk(0, 6), [outcome(0)])
    let_go(ledger, chunk(0, 6), HERE)
    assert backlog.settle("job", 60) and backlog.close("job", 0, 60)
    view = ledger.view("job")
    assert (view.status, view.done, view.ok, view.cancelled) == (JobStatus.CANCELLED, 6, 1, 5)


def test_only_a_silent_listing_is_given_up(ledger, backlog):
    ledger.create("job", JobOptions(source="s3://in/", dest="s3://out/"))

    assert not ledger.abandon_silent("job", 60, "silent")
    assert ledger.abandon_silent("job", 0, "silent")
    view = ledger.view("job")
    assert (view.status, view.reason, backlog.active()) == (JobStatus.CANCELLED, "silent", [])
    ledger.beat("job")
    ledger.beat("forgotten")
    assert ledger.link.client.exists(redis_keys.job(ledger.link.prefix, "forgotten")) == 0
    running(ledger, 6, job="other")
    assert not ledger.abandon_silent("other", 0, "silent")


def test_a_job_cancelled_while_it_was_listed_cannot_be_run_again(ledger):
    ledger.create("job", JobOptions(source="s3://in/", dest="s3://out/"))
    ledger.cancel("job")

    with pytest.raises(JobStateError, match="cancelled"):
        ledger.reopen("job", failed=True, cancelled=True)
    assert ledger.view("job").status is JobStatus.CANCELLED


@pytest.mark.parametrize("limit", [{"max_failed": 1}, {"max_failed_percent": 20}])
def test_the_last_image_can_be_the_one_too_many(ledger, limit):
    running(ledger, 3, **limit)
    ledger.record(chunk(0, 3), [outcome(0)])

    last = ledger.record(chunk(0, 3), [outcome(1, FAILED), outcome(2, FAILED)])

    view = ledger.view("job")
    assert last.completed and (view.status, view.ending) == (JobStatus.CLOSING, "stopped")
    assert view.reason.startswith("2 ")


@pytest.mark.parametrize("limit", [{"max_failed": 0}, {"max_failed_percent": 10}])
def test_a_job_that_was_stopped_for_failures_is_judged_anew_when_the_rest_is_run(ledger, backlog, limit):
    running(ledger, 6, **limit)
    ledger.start(chunk(0, 6), HERE)
    ledger.record(chunk(0, 6), [outcome(0, FAILED)])
    let_go(ledger, chunk(0, 6), HERE)
    assert backlog.settle("job", 60) and backlog.close("job", 0, 60)
    assert ledger.view("job").status is JobStatus.STOPPED

    ledger.reopen("job", failed=False, cancelled=True)

    assert ledger.record(chunk(0, 6, epoch=1), [outcome(1)]).go_on
    ledger.record(chunk(0, 6, epoch=1), [outcome(2, FAILED)])
    assert ledger.view("job").status is JobStatus.STOPPING


def test_chunks_are_not_taken_for_messages_of_an_earlier_epoch(ledger, backlog):
    running(ledger, 6)
    ledger.record(chunk(0, 6), [outcome(i, FAILED) for i in range(3)])
    ledger.cancel("job")
    backlog.settle("job", 0)
    backlog.close("job", 0, 60)
    ledger.reopen("job", failed=True, cancelled=True)

    assert backlog.take("job", 2, epoch=0) == []
    assert backlog.take("job", 2, epoch=1) == [0, 1]


def test_a_chunk_that_is_not_outstanding_is_not_published_again(ledger, backlog):
    running(ledger, 6)
    ledger.record(chunk(0, 6), [outcome(i) for i in range(3)])

    assert backlog.reclaim("job", [0], 0) == []


def test_a_job_that_is_run_again_waits_for_one_that_writes_to_the_same_place(ledger, backlog):
    running(ledger, 3)
    ledger.record(chunk(0, 3), [outcome(0), outcome(1), outcome(2, FAILED)])
    backlog.close("job", 0, 60)
    running(ledger, 3, job="later")

    ledger.reopen("job", failed=True, cancelled=False)

    assert [job.view.job for job in backlog.active()] == ["later", "job"]
