"""The ledger's scripts against a real server, compared with a model over random histories."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from worker.contract.errors import AccessDenied, BrokerUnavailable, JobNotFound
from worker.contract.ledger import MAX_FAILURES, Ledger, Verdict
from worker.contract.messages import ChunkMessage, JobOptions, JobStatus, Outcome, OutcomeKind
from worker.contract.settings import RedisSettings

OPTIONS = JobOptions(source="s3://in/", dest="s3://out/")
K = 3


def chunk(number: int, total: int, job: str = "job") -> ChunkMessage:
    first = number * K
    return ChunkMessage(
        job=job, chunk=number, start=first, keys=tuple(f"{i}.jpg" for i in range(first, min(first + K, total)))
    )


def outcome(index: int, kind: OutcomeKind = OutcomeKind.OK) -> Outcome:
    return Outcome(index=index, key=f"{index}.jpg", kind=kind, code="" if kind is OutcomeKind.OK else "undecodable")


def running(ledger: Ledger, total: int = 7, job: str = "job") -> None:
    chunks = -(-total // K)
    ledger.create(job, OPTIONS, chunk_images=K)
    ledger.expect(job, range(chunks))
    assert ledger.seal(job, total=total, chunks=chunks, size=100)


def test_a_job_runs_from_listing_to_finished(ledger):
    running(ledger, total=4)

    assert ledger.start(chunk(0, 4)).verdict is Verdict.RUN
    ledger.record(chunk(0, 4), [outcome(0), outcome(1), outcome(2, OutcomeKind.FAILED)])
    before = ledger.view("job")
    finished = ledger.record(chunk(1, 4), [outcome(3)])
    after = ledger.view("job")

    assert (before.status, before.done, before.failed) == (JobStatus.RUNNING, 3, 1)
    assert finished and (after.status, after.ok, after.failed) == (JobStatus.FINISHED, 3, 1)
    assert after.finished_at and after.started_at and after.options == OPTIONS
    assert ledger.failures("job") == [{"kind": "failed", "key": "2.jpg", "code": "undecodable", "message": ""}]


def test_a_redelivered_chunk_is_told_what_is_done_already(ledger):
    running(ledger)
    ledger.start(chunk(0, 7))
    ledger.record(chunk(0, 7), [outcome(1)])

    again = ledger.start(chunk(0, 7))

    assert again.verdict is Verdict.RUN
    assert again.outcomes == (None, OutcomeKind.OK, None)


def test_a_complete_chunk_is_not_run_again(ledger):
    running(ledger)
    ledger.record(chunk(0, 7), [outcome(0), outcome(1), outcome(2)])

    assert ledger.start(chunk(0, 7)).verdict is Verdict.DONE


def test_starts_without_progress_end_in_death(ledger):
    running(ledger)

    verdicts = [ledger.start(chunk(0, 7)).verdict for _ in range(4)]

    assert verdicts == [Verdict.RUN, Verdict.RUN, Verdict.RUN, Verdict.DEAD]


def test_progress_and_handing_back_give_attempts_back(ledger):
    running(ledger)
    for _ in range(3):
        ledger.start(chunk(0, 7))
    ledger.record(chunk(0, 7), [outcome(0)])

    for _ in range(5):
        assert ledger.start(chunk(0, 7)).verdict is Verdict.RUN
        ledger.hand_back(chunk(0, 7))


def test_a_cancelled_and_an_unknown_job_are_dropped(ledger):
    running(ledger)
    ledger.abandon("job", "no reason")

    assert ledger.start(chunk(0, 7)).verdict is Verdict.CANCELLED
    assert ledger.start(chunk(0, 7, job="other")).verdict is Verdict.UNKNOWN
    assert not ledger.record(chunk(0, 7, job="other"), [outcome(0)])
    assert ledger.view("job").reason == "no reason"
    with pytest.raises(JobNotFound, match="producer list"):
        ledger.view("other")


def test_failures_kept_are_bounded(ledger):
    total = MAX_FAILURES + 40
    ledger.create("job", OPTIONS, chunk_images=64)
    ledger.seal("job", total=total, chunks=20, size=1)
    for first in range(0, total, 64):
        keys = tuple(str(i) for i in range(first, min(first + 64, total)))
        message = ChunkMessage(job="job", chunk=first // 64, start=first, keys=keys)
        ledger.record(message, [outcome(first + i, OutcomeKind.FAILED) for i in range(len(keys))])

    assert ledger.view("job").failed == total
    assert len(ledger.failures("job")) == MAX_FAILURES


def test_jobs_are_listed_newest_first(ledger):
    for job in ("a", "b", "c"):
        ledger.create(job, OPTIONS, chunk_images=K)

    assert [view.job for view in ledger.jobs(2)] == ["c", "b"]


def test_a_wrong_password_and_a_dead_port_are_told_apart(standalone):
    right = RedisSettings(url=standalone.redis_url)
    with Ledger(right) as ledger, pytest.raises(AccessDenied, match="MASKMILL_REDIS__PASSWORD"):
        ledger.check()
    with (
        Ledger(RedisSettings(url="redis://127.0.0.1:1/0")) as ledger,
        pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"),
    ):
        ledger.check()


events = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 2)),
        st.tuples(st.just("hand_back"), st.integers(0, 2)),
        st.tuples(
            st.just("record"), st.integers(0, 2), st.lists(st.tuples(st.integers(0, 2), st.sampled_from(OutcomeKind)))
        ),
        st.tuples(st.just("seal")),
    ),
    max_size=25,
)


@given(events)
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_keeps_counters_and_states_equal(ledger_factory, history):
    """Counters equal states, an image has one outcome, what is ok stays ok, a job finishes once and only complete."""
    total, finished_by = 7, 0
    model: dict[int, OutcomeKind] = {}
    with ledger_factory() as ledger:
        ledger.create("job", OPTIONS, chunk_images=K)
        for event in history:
            if event[0] == "start":
                answer = ledger.start(chunk(event[1], total), max_attempts=10**6)
                size = len(chunk(event[1], total).keys)
                known = tuple(model.get(event[1] * K + i) for i in range(size))
                assert answer.outcomes == known
                assert (answer.verdict is Verdict.DONE) == (None not in known)
            elif event[0] == "hand_back":
                ledger.hand_back(chunk(event[1], total))
            elif event[0] == "seal":
                ledger.seal("job", total=total, chunks=3, size=1)
            else:
                message = chunk(event[1], total)
                found = [
                    Outcome(index=event[1] * K + position, key="k", kind=kind)
                    for position, kind in event[2]
                    if position < len(message.keys)
                ]
                good = (OutcomeKind.OK, OutcomeKind.SKIPPED)
                for one in found:
                    old = model.get(one.index)
                    if old is None or (old not in good and one.kind in good):
                        model[one.index] = one.kind
                finished_by += ledger.record(message, found)

            view = ledger.view("job")
            assert ledger.outcomes("job", 0, total) == [model.get(i) for i in range(total)]
            for kind in OutcomeKind:
                assert getattr(view, kind.value) == sum(value is kind for value in model.values())
            if view.status is JobStatus.FINISHED:
                assert view.done == total
        assert finished_by == (view.status is JobStatus.FINISHED if history else False)
