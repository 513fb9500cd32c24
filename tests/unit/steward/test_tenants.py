"""Tenants share the workers: neither the number of jobs of one, nor their chunks or pictures, takes from another."""

from __future__ import annotations

import functools
from collections import Counter, deque
from dataclasses import dataclass, replace

import pytest

from support.jobs import active
from worker.contract.ledger.records import JobRecord
from worker.contract.messages import Priority
from worker.contract.s3url import S3Url
from worker.steward.feeder import allot
from worker.steward.tenants import Turns, tenant_of


@dataclass(unsafe_hash=True)
class Job:
    """A job of a simulated fleet."""

    name: str
    dest: str
    chunks: int
    images: int = 1
    seconds: float = 1.0
    """Of one image."""

    priority: Priority = Priority.NORMAL
    outstanding: int = 0
    done: int = 0
    spent: float = 0.0

    def record(self) -> JobRecord:
        """Return it as the ledger would."""
        return _record(replace(self))


@functools.cache
def _record(job: Job) -> JobRecord:
    found = active(job.name, dest=job.dest, waiting=job.chunks, outstanding=job.outstanding, priority=job.priority)
    measured = {"chunk_images": job.images, "total": 10**6, "ok": job.done, "core_seconds": job.spent}
    return replace(found, view=found.view.model_copy(update=measured))


def seconds_until_done(jobs: list[Job], watched: str, workers: int, tenants: tuple[str, ...] = ()) -> float:
    """Run a fleet until a job is done, and return the time that takes."""
    by_name = {job.name: job for job in jobs}
    usual, express, served = deque(), deque(), dict[str, float]()
    busy: list[tuple[float, str]] = []
    now = 0.0
    while by_name[watched].chunks or by_name[watched].outstanding:
        room = 2 * workers - len(usual) - len(express)
        for grant in allot([job.record() for job in jobs], room, 3 * workers, served, tenants):
            job = by_name[grant.job.view.job]
            job.chunks -= grant.chunks
            job.outstanding += grant.chunks
            (express if grant.express else usual).extend([job.name] * grant.chunks)
        while len(busy) < workers and (express or usual):
            job = by_name[(express or usual).popleft()]
            busy.append((now + job.images * job.seconds, job.name))
        busy.sort()
        now, name = busy.pop(0)
        job = by_name[name]
        job.outstanding -= 1
        job.done += job.images
        job.spent += job.images * job.seconds
    return now


NEIGHBOURS = {
    "many jobs of one chunk": [Job(f"a{number}", f"s3://a/{number}/", 1, images=4) for number in range(200)],
    "a million tiny images that fail": [Job("a", "s3://a/", 10**6, images=64, seconds=0.01)],
    "a job at the size limits": [Job("a", "s3://a/", 10**6, images=256)],
    "slow pictures": [Job("a", "s3://a/", 10**6, images=8, seconds=5.0)],
    "more jobs of the same tenant": [
        Job("a", "s3://a/", 10**6),
        *(Job(f"b{number}", "s3://b/y/", 10**6) for number in range(3)),
    ],
}


@pytest.mark.parametrize("workers", [2, 8])
@pytest.mark.parametrize("name", NEIGHBOURS)
def test_a_job_takes_at_most_its_fair_time_beside_a_neighbour(name, workers):
    """Half of the workers are those of the other tenant, and a job waits once for what is running and queued."""
    neighbours = [replace(job) for job in NEIGHBOURS[name]]
    beside_own = sum(job.dest.startswith("s3://b/") for job in neighbours)
    alone = seconds_until_done([Job("b", "s3://b/x/", 40, images=7)], "b", workers)

    beside = seconds_until_done([*neighbours, Job("b", "s3://b/x/", 40, images=7)], "b", workers)

    queued = 3 * max(job.images * job.seconds for job in neighbours)
    assert beside <= 1.2 * 2 * (1 + beside_own) * alone + queued


def test_tenants_with_one_bucket_are_told_apart_by_their_prefixes():
    def jobs():
        return [Job(f"a{number}", f"s3://all/a/{number}/", 1) for number in range(200)] + [Job("b", "s3://all/b/", 40)]

    shared = seconds_until_done(jobs(), "b", 2)
    apart = seconds_until_done(jobs(), "b", 2, ("all/a/", "all/b"))

    assert apart <= 1.2 * 40
    assert shared >= 100, "control: in one bucket, every job has the same share"


def test_a_tenant_is_the_longest_prefix_else_the_bucket():
    prefixes = ("all/a/", "all/a/inner", "other/")
    places = (
        "s3://all/a/x/",
        "s3://all/a/inner/x/",
        "s3://all/a/innermost/",
        "s3://all/",
        "s3://all/ab/",
        "s3://new/x/",
    )

    assert [tenant_of(S3Url.parse(place), prefixes) for place in places] == [
        *("all/a/", "all/a/inner", "all/a/"),
        *("all", "all", "new"),
    ]


def test_priorities_divide_the_share_of_a_tenant_and_urgent_tenants_get_more():
    jobs = [
        active("a-high", dest="s3://a/", priority=Priority.HIGH, waiting=999),
        active("a-low", dest="s3://a/x/", priority=Priority.LOW, waiting=999),
        active("b-high", dest="s3://b/", priority=Priority.HIGH, waiting=999),
        active("c-normal", dest="s3://c/", waiting=999),
    ]

    got = Counter({grant.job.view.job: grant.chunks for grant in allot(jobs, 360, 360)})

    assert got["a-high"] + got["a-low"] == pytest.approx(160, abs=1)
    assert got["a-high"] / got["a-low"] == pytest.approx(16, rel=0.1)
    assert (got["b-high"], got["c-normal"]) == (pytest.approx(160, abs=1), pytest.approx(40, abs=1))


def test_a_tenant_that_was_served_while_others_had_nothing_is_not_locked_out():
    served: dict[str, float] = {}
    mine = active("a", dest="s3://a/", waiting=10**6)
    slow = replace(mine, view=mine.view.model_copy(update={"ok": 64, "core_seconds": 6400.0, "chunk_images": 64}))
    for _ in range(100):
        allot([slow, active("b", dest="s3://b/", waiting=1)], 8, 3, served)

    others = active("b", dest="s3://b/", waiting=10**6)
    got = [allot([mine, others], 1, 3, served)[0].job.view.job for _ in range(400)]

    assert "a" in got


def names(jobs: list[JobRecord]) -> list[str]:
    return [job.view.job for job in jobs]


def test_tenants_take_turns_at_the_books():
    jobs = [active(f"a{number}", dest=f"s3://a/{number}/", waiting=number) for number in range(3)]
    jobs += [active("b2", dest="s3://b/2/", waiting=2), active("b1", dest="s3://b/1/", waiting=1)]
    jobs += [active("c", dest="s3://c/")]

    assert names(Turns().order(jobs, lambda job: job.waiting)) == ["a0", "b1", "c", "a1", "b2", "a2"]


def test_what_was_not_reached_comes_first_next_time():
    jobs = [active(f"a{number}", dest=f"s3://a/{number}/", waiting=number) for number in range(3)]
    jobs += [active("b", dest="s3://b/"), active("c", dest="s3://c/")]
    turns, order = Turns(), []
    for _ in range(5):  # each time only the first is reached
        first = turns.order(jobs, lambda job: job.waiting)[0]
        turns.note(jobs, {first.view.job})
        order.append(first.view.job)

    assert order == ["a0", "b", "c", "a1", "b"]
    assert not turns.complete
    turns.note(jobs, names(jobs))
    assert turns.complete


def test_what_was_reached_in_another_part_of_the_jobs_still_comes_last():
    jobs = [active(name, dest=f"s3://out/{name}/") for name in "abc"]
    turns = Turns()
    turns.note(jobs[:2], {"a"}, ends_round=False)
    turns.note(jobs[2:], {"c"}, ends_round=True)

    assert names(turns.order(jobs[:2], lambda job: 0)) == ["b", "a"]

    for _ in range(2):  # two rounds without a job: it has ended
        turns.note(jobs[2:], {"c"}, ends_round=True)
    assert names(turns.order(jobs[:2], lambda job: 0)) == ["a", "b"]
