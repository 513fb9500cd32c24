"""Outcomes of running and ended jobs: each image once, from Redis and S3 alike."""

from __future__ import annotations

import pytest

from producer import outcomes as reading
from producer.outcomes import outcomes, recall
from support.jobs import run
from support.scheduler_harness import World
from worker.contract import redis_keys
from worker.contract.errors import ContractError, JobNotFound, SourceError
from worker.contract.messages import OutcomeKind
from worker.contract.queue import celery_app
from worker.contract.storage import manifest, outcome_log
from worker.steward import bookkeeper


@pytest.fixture
def world(place, ledger, store):
    app = celery_app.make_celery(place.settings)
    yield World(place.settings, place.bucket, ledger, store, app)
    app.close()


def told(world: World, **how) -> list[tuple[int, str]]:
    found = outcomes(world.store, world.ledger, world.ledger.view("job"), **how)
    return sorted((outcome.index, outcome.kind.value) for outcome in found)


def ended(world: World) -> None:
    for _ in range(3):
        world.bookkeeper.tick()
    assert world.ledger.view("job").ended


def test_a_running_job_tells_what_is_in_redis_and_what_is_in_s3(world, monkeypatch):
    monkeypatch.setattr(bookkeeper, "COLLECT_SECONDS", 0)
    view = world.submit(9)
    run(world.ledger, view, [0], bad=[1])
    world.bookkeeper.tick()
    run(world.ledger, view, [1])
    assert [job.pending_outcomes for job in world.backlog.active()] == [3]

    assert told(world) == [(0, "ok"), (1, "failed"), (2, "ok"), (3, "ok"), (4, "ok"), (5, "ok")]
    assert told(world, kinds=[OutcomeKind.FAILED]) == [(1, "failed")]
    found = outcomes(world.store, world.ledger, world.ledger.view("job"))
    assert all(outcome.at for outcome in found)


@pytest.mark.parametrize("moment", ["before Redis is read", "between", "not at all"])
def test_what_moves_from_redis_to_s3_while_it_is_read_is_told_once_and_in_full(world, monkeypatch, moment):
    monkeypatch.setattr(bookkeeper, "COLLECT_SECONDS", 0)
    run(world.ledger, world.submit(9), [0, 1])
    where, name = (
        (world.ledger.connection.client, "xrevrange") if moment.startswith("before") else (outcome_log, "part_names")
    )
    read = getattr(where, name)

    def meanwhile(*args):
        if moment != "not at all":
            world.bookkeeper.tick()
        return read(*args)

    monkeypatch.setattr(where, name, meanwhile)
    found = list(outcomes(world.store, world.ledger, world.ledger.view("job")))

    assert sorted(outcome.index for outcome in found) == [0, 1, 2, 3, 4, 5]
    assert all(outcome.at for outcome in found)


def test_what_waits_in_redis_is_read_in_pieces_newest_first(world):
    run(world.ledger, world.submit(9), [0, 1])

    found = list(world.backlog.recent("job", 4))

    assert found == list(reversed(world.backlog.pending_outcomes("job", 100)))
    assert len(found) == 6


@pytest.mark.parametrize("lists", ["there", "removed"])
def test_an_ended_job(world, lists):
    view = world.submit(7)
    run(world.ledger, view, [0, 1], bad=[2])
    world.ledger.cancel("job")
    ended(world)
    if lists == "removed":
        world.store.delete(manifest.job_folder(world.out, "job") / "manifest.json")

    cancelled = [(6, "cancelled")] if lists == "there" else []
    assert told(world) == [*((i, "failed" if i == 2 else "ok") for i in range(6)), *cancelled]


def test_of_an_ended_job_only_the_lists_asked_for_are_read(world, monkeypatch):
    run(world.ledger, world.submit(6), [0, 1], bad=[2])
    ended(world)
    monkeypatch.setattr(reading.jsonlines, "read", lambda *_: pytest.fail("the long lists are read"))

    assert told(world, kinds=[OutcomeKind.FAILED, OutcomeKind.DEAD]) == [(2, "failed")]
    assert told(world, needs_review=True) == []


def test_a_job_that_redis_has_forgotten_is_told_from_s3(world):
    run(world.ledger, world.submit(6), [0, 1], bad=[2])
    ended(world)
    before, known = world.ledger.view("job"), told(world)
    world.ledger.forget("job")

    view = recall(world.store, world.out, "job")

    found = outcomes(world.store, world.ledger, view)
    assert sorted((outcome.index, outcome.kind.value) for outcome in found) == known
    assert (view.ok, view.failed, view.codes, view.status) == (before.ok, before.failed, before.codes, before.status)


def test_a_job_that_is_not_there_is_not_recalled(world):
    with pytest.raises(JobNotFound, match="producer recover nojob"):
        recall(world.store, world.out, "nojob")


def test_a_list_that_was_removed_or_changed_is_named(world):
    run(world.ledger, world.submit(3), [0], bad=[1])
    ended(world)
    failed = manifest.job_folder(world.out, "job") / outcome_log.FAILED
    world.store.put(failed, b"nonsense\n", content_type="x")
    with pytest.raises(ContractError, match="is not an outcome"):
        told(world)
    world.store.delete(failed)
    with pytest.raises(ContractError, match=r"failed\.jsonl is gone"):
        told(world)


def test_details_that_redis_lost_leave_the_outcome(world):
    run(world.ledger, world.submit(6), [0], bad=[1])
    world.ledger.connection.client.delete(redis_keys.job_keys(world.ledger.connection.prefix, "job").log)

    assert told(world) == [(0, "ok"), (1, "failed"), (2, "ok")]


def test_a_job_that_is_still_listed_has_none(world):
    view = world.submit(3).model_copy(update={"total": None})
    with pytest.raises(SourceError, match="still being listed"):
        list(outcomes(world.store, world.ledger, view))
