"""How the room in the queue is divided over jobs."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.jobs import active
from worker.contract.ledger.records import JobRecord
from worker.contract.messages import JobOptions, Priority
from worker.steward.feeder import WEIGHTS, allot, reachable

LOW, NORMAL, HIGH = Priority.LOW, Priority.NORMAL, Priority.HIGH


@st.composite
def fleets(draw):
    """Jobs, room and capacity as a feeder may find them."""
    workers = draw(st.integers(1, 40))
    jobs = [
        active(
            f"job{number}",
            priority=draw(st.sampled_from(Priority)),
            waiting=draw(st.one_of(st.integers(0, 3), st.just(10_000))),
            outstanding=draw(st.integers(0, 4 * workers)),
        )
        for number in range(draw(st.integers(0, 8)))
    ]
    return jobs, draw(st.integers(-2 * workers, 2 * workers)), 3 * workers


def given_to(grants):
    return {grant.job.view.job: grant.chunks for grant in grants}


@given(fleets())
def test_no_job_gets_more_than_it_has_and_all_together_no_more_than_fits(fleet):
    jobs, room, capacity = fleet

    grants = allot(jobs, room, capacity)

    got = given_to(grants)
    assert len(got) == len(grants)
    assert all(0 < got[job.view.job] <= job.waiting for job in jobs if job.view.job in got)
    over = sum(got.values()) - max(0, room)
    assert over <= max(0, capacity // 2 + 1 + min(0, room))
    if over > 0:
        assert any(grant.express for grant in grants)
    assert grants == allot(jobs, room, capacity)


@given(fleets())
def test_room_is_used_up_while_anything_waits(fleet):
    jobs, room, capacity = fleet

    got = sum(given_to(allot(jobs, room, capacity)).values())

    assert got >= min(max(0, room), sum(job.waiting for job in jobs))


@given(fleets())
def test_only_a_job_with_less_than_half_its_share_goes_before_others(fleet):
    jobs, room, capacity = fleet
    hungry = [job for job in jobs if job.waiting]
    weights = sum(WEIGHTS[job.view.policy.priority] for job in hungry)

    for grant in allot(jobs, room, capacity):
        share = capacity * WEIGHTS[grant.job.view.policy.priority] / weights
        # With a share of less than one chunk at once, a job waits for its turn.
        assert grant.express == (len(hungry) > 1 and share >= 1 and grant.job.outstanding < share / 2)


@given(fleets(), st.integers(1, 30))
def test_no_job_starves(fleet, workers):
    """From any state of the queue, every job with chunks left makes progress as the fleet completes chunks."""
    jobs, _, _ = fleet
    capacity, window = 3 * workers, 2 * workers
    waiting = {job.view.job: min(job.waiting, 20) for job in jobs if job.waiting}
    priority = {job.view.job: job.view.policy.priority for job in jobs}
    outstanding = dict.fromkeys(waiting, 0)
    served = set()
    for _ in range(300):
        if not any(waiting.values()):
            break
        now = [active(n, priority=priority[n], waiting=waiting[n], outstanding=outstanding[n]) for n in waiting]
        for name, chunks in given_to(allot(now, window - sum(outstanding.values()), capacity)).items():
            waiting[name] -= chunks
            outstanding[name] += chunks
            served.add(name)
        for name in sorted(outstanding, key=outstanding.__getitem__, reverse=True)[:workers]:  # the worst order
            outstanding[name] -= min(1, outstanding[name])
    assert served == set(waiting)


def test_shares_follow_priorities():
    jobs = [active("low", priority=LOW, waiting=999), active("high", priority=HIGH, waiting=999)]

    got = given_to(allot([*jobs, active("normal", waiting=999)], 210, 210))

    assert got == {"low": 10, "normal": 40, "high": 160}


def started(workers: int, jobs: dict[str, tuple[Priority, int]], chunks: int) -> str:
    """Return the order in which a fleet starts the first `chunks` chunks: the job's name for each."""
    waiting = {name: count for name, (_, count) in jobs.items()}
    outstanding = dict.fromkeys(jobs, 0)
    usual, express, served, order = deque(), deque(), {}, []
    running = deque([None] * workers)
    while len(order) < chunks and any(waiting.values()):
        now = [
            active(name, priority=jobs[name][0], waiting=waiting[name], outstanding=outstanding[name]) for name in jobs
        ]
        for grant in allot(now, 2 * workers - len(usual) - len(express), 3 * workers, served):
            name = grant.job.view.job
            waiting[name] -= grant.chunks
            outstanding[name] += grant.chunks
            (express if grant.express else usual).extend([name] * grant.chunks)
        if (done := running.popleft()) is not None:
            outstanding[done] -= 1
        running.append((express or usual).popleft() if express or usual else None)
        order += [running[-1]] if running[-1] else []
    return "".join(order)


@pytest.mark.parametrize("workers", [1, 2, 10])
@pytest.mark.parametrize(("priority", "times"), [(NORMAL, 4), (HIGH, 16)])
def test_priorities_hold_over_time_however_few_workers_there_are(workers, priority, times):
    order = started(workers, {"l": (LOW, 9999), "x": (priority, 9999)}, 40 * workers * (times + 1))

    assert order.count("x") / order.count("l") == pytest.approx(times, rel=0.15)


def test_jobs_of_one_priority_take_turns():
    order = started(1, dict.fromkeys("abcdefgh", (NORMAL, 99)), 80)

    assert {order.count(name) for name in "abcdefgh"} == {10}


def test_a_job_that_comes_later_has_no_claim_on_what_others_got_before():
    served: dict[str, float] = {}
    for _ in range(50):
        allot([active("old", waiting=999)], 1, 3, served)

    jobs = [active(name, waiting=999, outstanding=1) for name in ("old", "new")]
    got = [given_to(allot(jobs, 1, 3, served)) for _ in range(10)]

    assert 4 <= sum(one.get("new", 0) for one in got) <= 6


def test_one_job_has_it_all_and_is_never_express():
    [grant] = allot([active(waiting=99)], 20, 30)

    assert (grant.chunks, grant.express) == (20, False)


def test_a_small_job_behind_a_big_one_starts_though_the_queue_is_full():
    jobs = [active("big", waiting=60_000, outstanding=30), active("small", waiting=2)]

    [grant] = allot(jobs, 0, 30)

    assert (grant.job.view.job, grant.chunks, grant.express) == ("small", 2, True)


def test_a_queue_that_is_overfull_already_is_not_filled_further():
    jobs = [active("big", waiting=60_000, outstanding=30), active("small", waiting=99)]

    assert allot(jobs, -16, 30) == []


def test_nothing_to_do_gets_nothing():
    assert allot([], 10, 30) == []
    assert allot([active(waiting=0)], 10, 30) == []


# -- jobs for which S3 is unavailable -----------------------------------------------------------------------------


def away(job: str, bucket: str = "in", *, wait: float = 0.0, **how: Any) -> JobRecord:
    """Return a job that waits for a bucket, with `wait` seconds until the next try."""
    found = active(job, **how)
    view = found.view.model_copy(update={"store_retry_at": 1000.0 + wait, "store_bucket": bucket})
    return replace(found, view=view, store_wait=wait)


def names(found: tuple[list[JobRecord], list[JobRecord]]) -> tuple[list[str], list[str]]:
    others, trying = found
    return [job.view.job for job in others], [job.view.job for job in trying]


def test_of_the_jobs_of_a_bucket_the_first_tries():
    assert names(reachable([away("a"), away("b")])) == ([], ["a"])
    assert names(reachable([away("a", waiting=0), away("b")])) == ([], ["b"])
    assert names(reachable([away("a"), away("b", "out")])) == ([], ["a", "b"])


@pytest.mark.parametrize("busy", [away("b", wait=1.0), away("b", outstanding=1)])
def test_nothing_is_tried_before_its_time_and_beside_another_try(busy):
    assert names(reachable([away("a"), busy])) == ([], [])


def test_other_jobs_of_the_bucket_are_held_back_and_those_of_others_not():
    other = active("other")
    other = replace(other, view=other.view.model_copy(update={"options": JobOptions(source="s3://x/", dest="s3://y/")}))

    assert names(reachable([away("a", wait=9.0), active("same-source"), other])) == (["other"], [])
    writer = replace(
        away("a", "y", wait=9.0), view=away("a", "y").view.model_copy(update={"options": other.view.options})
    )
    assert names(reachable([writer, active("same-source"), other])) == (["same-source"], [])


@pytest.mark.parametrize(
    "crooked",
    [away("a", wait=3e9), away("a", wait=121.0), away("a", "elsewhere", wait=9.0), away("a", wait=-1e6, outstanding=1)],
    ids=["no time that comes", "longer than any pause", "a bucket that it does not use", "a try without an end"],
)
def test_a_note_that_no_worker_wrote_holds_up_no_job(crooked):
    """A crooked record of one job does not stop the other jobs of its bucket."""
    assert names(reachable([crooked, active("same-source")])) == (["a", "same-source"], [])
