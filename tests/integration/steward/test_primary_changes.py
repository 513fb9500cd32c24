"""The repair after another server has become the primary of Redis, step by step; the fault itself is in acceptance."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from support.jobs import HERE, message, run
from worker.contract import redis_keys
from worker.contract.errors import ObjectMissing
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog, PendingOutcome
from worker.contract.s3url import S3Url
from worker.contract.storage import outcome_log
from worker.contract.storage.manifest import job_folder
from worker.steward import bookkeeper, reconciler
from worker.steward.feed import Feed
from worker.telemetry import metrics

LONG_AGO = 1.0


@pytest.fixture
def feed(world) -> Feed:
    return Feed(world.settings, world.ledger, world.dispatcher)


def silence(world, *chunks: int) -> None:
    """Let chunks have given no sign of life since the primary changed."""
    outstanding = redis_keys.job_keys(world.ledger.connection.prefix, "job").outstanding
    world.ledger.connection.client.zadd(outstanding, dict.fromkeys(chunks, LONG_AGO))


def summary(world) -> S3Url:
    return job_folder(world.out, "job") / outcome_log.SUMMARY


def test_workers_look_for_outputs_once_the_primary_has_changed(world, feed):
    view = world.submit(9)
    feed()
    before = world.chunks.start(message(view, 0), HERE)
    primary = redis_keys.primary(world.ledger.connection.prefix)
    world.ledger.connection.client.hset(primary, "run_id", "another")
    counted = metrics.PRIMARY_CHANGES._value.get()

    feed()
    feed()

    assert metrics.PRIMARY_CHANGES._value.get() == counted + 1

    assert not before.recheck and world.chunks.start(message(view, 1), HERE).recheck
    assert world.chunks.options_if_unstarted(message(view, 2)) is None, (
        "it would be begun without a look at its outputs"
    )


def test_a_chunk_that_was_published_on_the_old_primary_is_found(world, monkeypatch):
    """It was taken on the new one, so it was heard of after the change."""
    world.submit(3)
    world.backlog.take("job", 1, epoch=0)
    found = world.reconciler(60)
    assert found.scan() == 0
    monkeypatch.setattr(reconciler, "AFTER_CHANGE_SECONDS", 0.0)

    assert found.scan_after_change(30) == 1
    assert world.queued() == ["job.0.0"]


def test_messages_of_lost_connections_are_dropped_and_their_chunks_published_again(world):
    """Except that of a chunk which a worker has reported: it still runs it."""
    view = world.submit(6)
    world.backlog.take("job", 2, epoch=0)
    world.dispatcher.send(view, [0, 1])
    prefix, client = world.ledger.connection.prefix, world.ledger.connection.client
    with world.celery.connection_for_read() as connection:
        queue = world.celery.amqp.queues[redis_keys.QUEUE](connection.default_channel)
        tags = [queue.get(no_ack=False).delivery_tag for _ in range(2)]
        client.zadd(redis_keys.unacked_index(prefix), dict.fromkeys(tags, LONG_AGO))
        silence(world, 0, 1)
        assert world.reconciler(60).scan() == 0, "the messages are held: the test proves nothing"
        assert world.chunks.touch(message(view, 0), HERE)

        found = world.reconciler(60).scan_after_change(30)

        assert found == 1 and world.queued() == ["job.0.1"]
        assert client.hkeys(redis_keys.unacked(prefix)) == client.zrange(redis_keys.unacked_index(prefix), 0, -1)
        assert client.hkeys(redis_keys.unacked(prefix)) == tags[:1]


def test_an_end_that_the_new_primary_cannot_follow_is_tried_again(world, monkeypatch):
    """It has outcomes that the old one gave, so that none of them may be deleted by the id that the old one gave."""
    run(world.ledger, world.submit(3), [0])
    pending = Backlog.pending_outcomes

    def of_the_old_primary(self: Backlog, job: str, count: int) -> list[PendingOutcome]:
        monkeypatch.undo()
        return [replace(entry, server="another") for entry in pending(self, job, count)]

    monkeypatch.setattr(Backlog, "pending_outcomes", of_the_old_primary)
    world.bookkeeper.tick()
    assert world.ledger.view("job").status is JobStatus.CLOSING

    world.bookkeeper.tick()

    view = world.ledger.view("job")
    assert view.status is JobStatus.FINISHED
    assert world.backlog.pending_outcomes("job", 9) == [], "outcomes are left behind"
    assert (json.loads(world.store.get(summary(world), max_bytes=10**6)[0])["counts"]["ok"], view.ok) == (3, 3)


@pytest.mark.parametrize("moment", ["before its lists", "after its lists"])
def test_a_job_whose_end_the_new_primary_lacks_stays_active(world, monkeypatch, moment):
    run(world.ledger, world.submit(3), [0])
    record = redis_keys.job_keys(world.ledger.connection.prefix, "job").record
    write_lists, close = bookkeeper.write_lists, Backlog.close

    def fail_over() -> None:
        monkeypatch.undo()
        world.ledger.connection.client.hset(record, mapping={"status": "running", "ok": 2})

    if moment == "before its lists":
        collect = bookkeeper.Bookkeeper._collect
        monkeypatch.setattr(bookkeeper.Bookkeeper, "_collect", lambda *args: (collect(*args), fail_over())[0])
    else:
        monkeypatch.setattr(bookkeeper, "write_lists", lambda *args: (write_lists(*args), fail_over())[0])

    world.bookkeeper.tick()

    assert world.ledger.view("job").status is JobStatus.RUNNING
    assert [job.view.job for job in world.backlog.active()] == ["job"]
    assert not close(world.backlog, "job", 0, 60)
    assert [job.view.job for job in world.backlog.active()] == ["job"]
    if moment == "before its lists":
        with pytest.raises(ObjectMissing):
            world.store.head(summary(world))


def test_an_ended_job_that_the_new_primary_knows_to_run_stays_active(world):
    run(world.ledger, world.submit(3), [0])
    record = redis_keys.job_keys(world.ledger.connection.prefix, "job").record
    world.bookkeeper.tick()
    client = world.ledger.connection.client
    client.sadd(redis_keys.active(world.ledger.connection.prefix), "job")

    client.hset(record, "status", "running")
    world.backlog.deactivate("job")
    assert [job.view.job for job in world.backlog.active()] == ["job"]

    client.hset(record, "status", "finished")
    world.backlog.deactivate("job")
    assert world.backlog.active() == []
