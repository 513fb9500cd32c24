"""Outcomes of running and ended jobs: each image once, whether the outcome is in Redis or in S3."""

from __future__ import annotations

import pytest

from producer import outcomes as outcomes_module
from producer.outcomes import read_ended_job, read_outcomes
from support.jobs import run
from support.scheduler_harness import SchedulerHarness
from worker.contract import redis_keys
from worker.contract.errors import ContractError, JobNotFound, SourceError
from worker.contract.messages import OutcomeKind
from worker.contract.queue import celery_app
from worker.contract.storage import manifest, outcome_log
from worker.steward import bookkeeper


@pytest.fixture
def world(installation, ledger, store):
    app = celery_app.make_celery(installation.settings)
    yield SchedulerHarness(installation.settings, installation.bucket, ledger, store, app)
    app.close()


def outcome_kinds(world: SchedulerHarness, **how) -> list[tuple[int, str]]:
    found = read_outcomes(world.store, world.ledger, world.ledger.view("job"), **how)
    return sorted((outcome.index, outcome.kind.value) for outcome in found)


def ended(world: SchedulerHarness) -> None:
    for _ in range(3):
        world.bookkeeper.tick()
    assert world.ledger.view("job").ended


def test_a_running_job_is_read_from_redis_and_s3(world, monkeypatch):
    monkeypatch.setattr(bookkeeper, "COLLECT_SECONDS", 0)
    view = world.submit(9)
    run(world.ledger, view, [0], bad=[1])
    world.bookkeeper.tick()
    run(world.ledger, view, [1])
    assert [job.pending_outcomes for job in world.backlog.active()] == [3]

    assert outcome_kinds(world) == [(0, "ok"), (1, "failed"), (2, "ok"), (3, "ok"), (4, "ok"), (5, "ok")]
    assert outcome_kinds(world, kinds=[OutcomeKind.FAILED]) == [(1, "failed")]
    found = read_outcomes(world.store, world.ledger, world.ledger.view("job"))
    assert all(outcome.at for outcome in found)


@pytest.mark.parametrize("moment", ["before Redis is read", "between", "not at all"])
def test_an_outcome_that_moves_from_redis_to_s3_meanwhile_is_read_once_and_complete(world, monkeypatch, moment):
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
    found = list(read_outcomes(world.store, world.ledger, world.ledger.view("job")))

    assert sorted(outcome.index for outcome in found) == [0, 1, 2, 3, 4, 5]
    assert all(outcome.at for outcome in found)


def test_outcomes_in_redis_are_read_in_pieces_newest_first(world):
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
    assert outcome_kinds(world) == [*((i, "failed" if i == 2 else "ok") for i in range(6)), *cancelled]


def test_only_the_needed_lists_of_an_ended_job_are_read(world, monkeypatch):
    run(world.ledger, world.submit(6), [0, 1], bad=[2])
    ended(world)
    monkeypatch.setattr(outcomes_module.jsonlines, "read", lambda *_: pytest.fail("the long lists are read"))

    assert outcome_kinds(world, kinds=[OutcomeKind.FAILED, OutcomeKind.DEAD]) == [(2, "failed")]
    assert outcome_kinds(world, needs_review=True) == []


def test_a_job_that_redis_has_forgotten_is_read_from_s3(world):
    run(world.ledger, world.submit(6), [0, 1], bad=[2])
    ended(world)
    before, known = world.ledger.view("job"), outcome_kinds(world)
    world.ledger.forget("job")

    view = read_ended_job(world.store, world.out, "job")

    found = read_outcomes(world.store, world.ledger, view)
    assert sorted((outcome.index, outcome.kind.value) for outcome in found) == known
    assert (view.ok, view.failed, view.codes, view.status) == (before.ok, before.failed, before.codes, before.status)


def test_an_unknown_job_cannot_be_read_from_s3(world):
    with pytest.raises(JobNotFound, match="producer recover nojob"):
        read_ended_job(world.store, world.out, "nojob")


def test_a_deleted_or_changed_list_is_named(world):
    run(world.ledger, world.submit(3), [0], bad=[1])
    ended(world)
    failed = manifest.job_folder(world.out, "job") / outcome_log.FAILED
    world.store.put(failed, b"nonsense\n", content_type="x")
    with pytest.raises(ContractError, match="is not an outcome"):
        outcome_kinds(world)
    world.store.delete(failed)
    with pytest.raises(ContractError, match=r"failed\.jsonl is missing"):
        outcome_kinds(world)


def test_an_outcome_whose_details_were_lost_is_still_read(world):
    run(world.ledger, world.submit(6), [0], bad=[1])
    world.ledger.connection.client.delete(redis_keys.job_keys(world.ledger.connection.prefix, "job").log)

    assert outcome_kinds(world) == [(0, "ok"), (1, "failed"), (2, "ok")]


def test_a_job_that_is_still_being_listed_has_no_outcomes(world):
    view = world.submit(3).model_copy(update={"total": None})
    with pytest.raises(SourceError, match="still being listed"):
        list(read_outcomes(world.store, world.ledger, view))
