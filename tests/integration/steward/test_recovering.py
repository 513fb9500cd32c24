"""A job that Redis has lost comes back from S3 with every count, and ends."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from producer.recover import recover
from support.jobs import HERE, image_states, lease, message, outcome, run
from worker.contract import outcome_codec, redis_keys
from worker.contract.errors import BrokerUnavailable, ContractError, JobNotFound, JobStateError
from worker.contract.job import JobStatus
from worker.contract.messages import OutcomeKind
from worker.contract.storage import manifest, outcome_log
from worker.steward import bookkeeper

OK, FAILED = OutcomeKind.OK, OutcomeKind.FAILED


def lose_redis(world) -> None:
    client = world.ledger.connection.client
    client.delete(*client.keys(f"{world.ledger.connection.prefix}*"))


def back(world):
    return recover(world.store, world.ledger, world.out, "job")


def facts(view) -> dict:
    kept = (
        "total",
        "bytes",
        "chunk_images",
        "chunks",
        "options",
        "ok",
        "skipped",
        "failed",
        "dead",
        "cancelled",
        "job",
    )
    return {name: getattr(view, name) for name in kept}


@pytest.fixture
def _at_once(monkeypatch) -> None:
    monkeypatch.setattr(bookkeeper, "COLLECT_SECONDS", 0)


@pytest.mark.usefixtures("_at_once")
def test_a_running_job_comes_back_exactly_and_completes(world):
    view = world.submit(11, max_failed=7)
    run(world.ledger, view, [0, 2], bad=[1])
    half = message(view, 1)
    world.chunks.start(half, HERE)
    lease(world.ledger, half).record([outcome(4, OutcomeKind.SKIPPED)])
    world.bookkeeper.tick()
    before, outcomes = world.ledger.view("job"), image_states(world.ledger, "job", 11)
    lose_redis(world)

    view = back(world)

    assert facts(view) == facts(before)
    assert image_states(world.ledger, "job", 11) == outcomes
    assert (view.status, view.epoch, view.policy.max_failed) == (JobStatus.RUNNING, 1, 7)
    assert view.policy.skip_existing
    assert [job.waiting for job in world.backlog.active()] == [2]
    assert world.feeder.tick() == 2
    assert world.queued() == ["job.1.1", "job.1.3"]
    assert world.chunks.start(half, HERE).verdict == "stale"
    run(world.ledger, view, [1, 3])
    for _ in range(2):
        world.bookkeeper.tick()
    after = world.ledger.view("job")
    assert (after.status, after.ok, after.skipped, after.failed) == (JobStatus.FINISHED, 9, 1, 1)
    assert world.store.head(manifest.job_folder(world.out, "job") / "_DONE")


def test_a_job_without_collected_outcomes_starts_again(world):
    run(world.ledger, world.submit(6), [0])
    lose_redis(world)

    view = back(world)

    assert (view.status, view.done, [job.waiting for job in world.backlog.active()]) == (JobStatus.RUNNING, 0, [2])


@pytest.mark.parametrize("ending", ["finished", "cancelled", "stopped"])
def test_a_job_that_had_ended_comes_back_as_it_was(world, ending):
    view = world.submit(6, max_failed=0 if ending == "stopped" else None)
    run(world.ledger, view, [0, 1] if ending == "finished" else [0], bad=[1] if ending != "cancelled" else [])
    if ending == "cancelled":
        world.ledger.cancel("job")
    for _ in range(3):
        world.bookkeeper.tick()
    before = world.ledger.view("job")
    assert before.status == ending
    lose_redis(world)

    view = back(world)

    assert facts(view) == facts(before)
    assert (view.status, view.done) == (before.status, 6)
    assert view.core_seconds == before.core_seconds
    assert world.backlog.active() == []
    if ending != "finished":
        again = world.ledger.reopen("job", failed=True, cancelled=True)
        run(world.ledger, again, [0, 1])
        assert world.ledger.view("job").ok == 6


@pytest.mark.usefixtures("_at_once")
def test_a_job_whose_lists_were_never_written_ends(world):
    run(world.ledger, world.submit(6), [0, 1])
    entries = world.backlog.pending_outcomes("job", 100)
    lines = [entry.line for entry in entries]
    outcome_log.write_part(world.store, world.out, "job", epoch=0, first_id=entries[0].id, lines=lines)
    lose_redis(world)

    assert back(world).status is JobStatus.CLOSING
    world.bookkeeper.tick()
    assert world.ledger.view("job").status is JobStatus.FINISHED


@pytest.mark.usefixtures("_at_once")
def test_an_interrupted_recovery_starts_again(world, monkeypatch, pauses):
    run(world.ledger, world.submit(60), [19])
    world.bookkeeper.tick()
    lose_redis(world)

    def lost(**_):
        raise RedisConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setitem(world.ledger.connection._scripts, "restore", lost)
        with pytest.raises(BrokerUnavailable):
            back(world)
    assert pauses.paused > world.ledger.connection.failover_seconds - 1
    with pytest.raises(JobNotFound):
        world.ledger.view("job")

    assert back(world).status is JobStatus.RUNNING
    assert [job.waiting for job in world.backlog.active()] == [19]
    with pytest.raises(JobStateError, match="job job is in Redis and running: there is nothing to recover"):
        back(world)


def test_a_job_that_cannot_be_recovered_is_reported(world):
    with pytest.raises(JobNotFound, match=r"no job 'job' under s3://.*job\.json"):
        back(world)
    place = manifest.job_folder(world.out, "job") / "job.json"
    for body, match in (
        (b"{", "is not JSON"),
        (b'{"total": 3}', "lacks options, policy, bytes, chunk_images"),
        (
            b'{"options": {"source": "s3://a/", "dest": "s3://elsewhere/"}, '
            b'"policy": {}, "total": 1, "bytes": 1, "chunk_images": 1}',
            "is a copy: its job writes to s3://elsewhere/",
        ),
        (b'{"options": {}, "policy": {}, "total": 1, "bytes": 1, "chunk_images": 1}', "does not have the format"),
    ):
        world.store.put(place, body, content_type="x")
        with pytest.raises(ContractError, match=match):
            back(world)


def test_a_damaged_part_of_the_outcomes_is_named(world):
    world.submit(3)
    lose_redis(world)
    world.damage(outcome_log.results_folder(world.out, "job") / "0000-000000000000001-000000-000001.jsonl.gz")

    with pytest.raises(ContractError, match=r"results/0000-.*was changed or replaced"):
        back(world)


def test_states_are_read_across_blocks_and_beyond_the_last_outcome(world, monkeypatch):
    monkeypatch.setattr("worker.contract.ledger.jobs._BLOCK_BYTES", 2)
    view = world.submit(23)
    run(world.ledger, view, [0, 3], bad=[10])
    written = bytearray(23)
    for index in (0, 1, 2, 9, 10, 11):
        written[index] = outcome_codec.NUMBERS[FAILED if index == 10 else OK]

    found = image_states(world.ledger, "job", 23)

    assert found == world.ledger.outcomes("job", 0, 23)
    assert [index for index, kind in enumerate(found) if kind is OK] == [0, 1, 2, 9, 11]
    stored = world.ledger.connection.client.execute_command(
        "GET", redis_keys.job_keys(world.ledger.connection.prefix, "job").images, NEVER_DECODE=True
    )
    assert outcome_codec.packed(written).startswith(stored)
    assert world.ledger.outcomes("job", 5, 0) == []
