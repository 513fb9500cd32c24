"""More active jobs than the steward looks at once: what it does for each holds all the same."""

from __future__ import annotations

import pytest

from support.crooked import TOLERATED
from support.jobs import message, run
from support.scheduler_harness import SchedulerHarness
from worker.contract import redis_keys
from worker.contract.job import JobStatus
from worker.contract.ledger import backlog as backlog_module
from worker.contract.ledger import records
from worker.contract.ledger.replication import Replicas
from worker.contract.s3url import S3Url
from worker.steward import bookkeeper, reconciler
from worker.steward.fleet_metrics import FleetCollector

PART, LOOKS = 2, 4
"""Jobs of one look, and looks at seven jobs."""

OTHERS = [f"other-{number}" for number in range(6)]


@pytest.fixture
def crowd(world, monkeypatch) -> SchedulerHarness:
    """Return a world with six running jobs, and room for two in a look."""
    for module in (records, backlog_module):
        monkeypatch.setattr(module, "MAX_ACTIVE", PART)
    for job in OTHERS:
        world.submit(6, job=job, dest=job)
    return world


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """Return the time of the bookkeeper, which tests set."""
    found = [0.0]
    monkeypatch.setattr(bookkeeper.time, "monotonic", lambda: found[0])
    return found


def ticks(world: SchedulerHarness, now: list[float], until: float) -> None:
    """Let the bookkeeper look after all jobs, one part a second."""
    while now[0] < until:
        assert not world.bookkeeper.tick(), "idle, although it has looked at a part only"
        now[0] += 1


def test_outcomes_are_collected_in_time(crowd, now):
    run(crowd.ledger, crowd.submit(6), [0])

    ticks(crowd, now, bookkeeper.COLLECT_SECONDS)
    assert len(crowd.backlog.pending_outcomes("job", 9)) == 3
    ticks(crowd, now, bookkeeper.COLLECT_SECONDS + 2 * LOOKS)

    assert crowd.backlog.pending_outcomes("job", 9) == []


def test_a_job_that_is_stuck_is_cancelled_in_time(crowd, now):
    crowd.submit(6)
    client, keys = crowd.ledger.connection.client, redis_keys.job_keys(crowd.ledger.connection.prefix, "job")
    TOLERATED["chunks that are in no place"](client, keys)

    ticks(crowd, now, bookkeeper.STUCK_SECONDS)
    assert crowd.ledger.view("job").status is JobStatus.RUNNING
    ticks(crowd, now, bookkeeper.STUCK_SECONDS + 2 * LOOKS)

    assert crowd.ledger.view("job").reason.startswith("its keys in Redis were changed")


def test_a_complete_listing_is_found_in_time(crowd, now):
    crowd.submit(6)
    record = redis_keys.job(crowd.ledger.connection.prefix, "job")
    crowd.ledger.connection.client.hset(record, "status", "listing")

    ticks(crowd, now, bookkeeper.LISTED_SECONDS + 2 * LOOKS)

    assert crowd.ledger.view("job").status is JobStatus.RUNNING


def test_what_is_remembered_of_jobs_that_ended_is_forgotten(crowd, now):
    ticks(crowd, now, LOOKS)
    assert crowd.bookkeeper._known.values().keys() == set(OTHERS)
    for job in OTHERS:
        crowd.ledger.cancel(job, "")

    for _ in range(4 * LOOKS):
        crowd.bookkeeper.tick()

    assert crowd.bookkeeper._known.values() == {}


def test_every_job_gets_chunks_within_a_round(crowd):
    """After the first, which only finds out which jobs wait for others."""
    crowd.submit(6)
    for _ in range(2 * LOOKS - 1):
        crowd.feeder.tick()
        assert not crowd.feeder.satisfied
        crowd.drain()

    assert all(job.outstanding for part in crowd.backlog.parts() for job in part)
    assert crowd.feeder._served.values().keys() >= {"job", *OTHERS}, "what others received is forgotten between parts"


def test_jobs_with_one_destination_run_one_after_the_other(crowd):
    for job in OTHERS:
        crowd.ledger.pause(job)
        crowd.submit(6, job=f"second-{job}", dest=f"{job}/deeper")
    for _ in range(6 * LOOKS):
        crowd.feeder.tick()
    assert crowd.queued() == []

    crowd.ledger.cancel(OTHERS[0], "")
    for _ in range(6 * LOOKS):
        crowd.bookkeeper.tick()
        crowd.feeder.tick()

    assert {id.rpartition(".")[0] for id in crowd.queued()} == {f"second-{OTHERS[0]}.0"}


def test_all_jobs_are_checked_after_a_change_of_the_primary(crowd, monkeypatch):
    for job in OTHERS:
        crowd.backlog.take(job, 1, epoch=0)
    monkeypatch.setattr(reconciler, "AFTER_CHANGE_SECONDS", 0.0)
    found = crowd.reconciler(60)

    found.recheck()

    assert found.scan_after_change(0) == len(OTHERS)
    assert sorted(crowd.queued()) == [f"{job}.0.0" for job in OTHERS]
    starts = [crowd.chunks.start(message(crowd.ledger.view(job), 0), "worker-0@node") for job in OTHERS]
    assert all(lease.recheck for lease in starts)


def test_a_failure_in_one_part_keeps_the_reconciler_from_no_other(crowd, monkeypatch):
    for job in OTHERS:
        crowd.backlog.take(job, 1, epoch=0)
    monkeypatch.setattr(reconciler, "AFTER_CHANGE_SECONDS", 0.0)
    send = reconciler.send

    def failing(ledger, dispatcher, view, chunks):
        if view.job == first:
            raise OSError(24, "too many open files")
        return send(ledger, dispatcher, view, chunks)

    first = next(crowd.backlog.parts())[0].view.job
    monkeypatch.setattr(reconciler, "send", failing)

    with pytest.raises(OSError, match="open files"):
        crowd.reconciler(60).scan_after_change(0)

    assert {id.split(".")[0] for id in crowd.queued()} == {*OTHERS} - {first}


def test_lost_chunks_of_every_job_are_found_within_a_round_of_scans(crowd):
    for job in OTHERS:
        crowd.backlog.take(job, 1, epoch=0)
    scanner = crowd.reconciler(0)

    assert sum(scanner.scan() for _ in range(3)) == len(OTHERS)


def test_totals_of_the_fleet_cover_all_jobs(crowd):
    fleet = FleetCollector(crowd.backlog, crowd.fleet, lambda: True, lambda: Replicas(0, 0), 0)
    found = {metric.name: metric.samples for metric in fleet.collect()}

    assert found["maskmill_backlog_images"][0].value == 6 * len(OTHERS)
    assert [sample.labels["job_id"] for sample in found["maskmill_job_info"]] == OTHERS


def test_the_job_that_one_waits_for_is_found_in_any_part(crowd):
    for job in OTHERS:
        view = crowd.submit(3, job=f"second-{job}", dest=f"{job}/deeper")

        assert crowd.backlog.first_blocker(view).job == job
        assert crowd.backlog.first_blocker(crowd.ledger.view(job)) is None
        assert crowd.backlog.first_writer(S3Url(crowd.bucket, f"{job}/")).job in {job, view.job}
    assert crowd.backlog.first_writer(crowd.out) is None
