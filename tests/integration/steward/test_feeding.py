"""Feeder and reconciler with a real queue: what they publish, what they find lost, and that no job blocks others."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from support.jobs import HERE, message, run
from support.log_lines import log_text
from worker.contract import redis_keys
from worker.contract.errors import BrokerUnavailable, ContractError, StoreUnavailable
from worker.contract.job import JobStatus
from worker.contract.ledger.chunks import Verdict
from worker.contract.messages import Priority
from worker.contract.queue import celery_app
from worker.contract.queue.dispatcher import _PARTS_KEPT, Dispatcher, window
from worker.contract.storage import manifest, outcome_log
from worker.steward.feeder import UNREAD_SECONDS, Feeder

WINDOW = window(workers=0)


def test_the_window_is_filled_and_not_more(world):
    world.submit(30)

    assert world.feeder.tick() == WINDOW
    assert world.feeder.tick() == 0
    assert world.queued() == ["job.0.0", "job.0.1"]


def test_the_feeder_is_satisfied_when_all_that_waits_waits_for_the_fleet(world):
    world.feeder.tick()
    assert not world.feeder.satisfied  # no job: the next one may come at any moment
    world.submit(30)
    world.feeder.tick()
    assert not world.feeder.satisfied  # it has just published
    world.feeder.tick()
    assert world.feeder.satisfied  # the window is full
    world.ledger.pause("job")
    world.feeder.tick()
    assert not world.feeder.satisfied  # it may be resumed
    world.ledger.resume("job")
    world.submit(3, job="second")
    world.feeder.tick()
    assert not world.feeder.satisfied  # the second begins as soon as the first has ended


def test_the_window_grows_with_the_fleet(world):
    world.submit(60)
    fleet = world.fleet
    for number in range(4):
        fleet.heartbeat(f"worker-{number}@here")

    assert world.feeder.tick() == world.backlog.queued() == window(4)


def test_a_small_job_goes_before_what_waits(world):
    world.submit(60, job="big", dest="big")
    world.feeder.tick()
    world.submit(2, job="small", dest="small", priority=Priority.HIGH)

    assert world.feeder.tick() == 1
    assert world.queued(redis_keys.EXPRESS_QUEUE) == ["small.0.0"]


def test_a_job_waits_for_the_one_before_it(world):
    first = world.submit(3, job="first", dest="out")
    world.submit(3, job="second", dest="out/deeper")

    world.feeder.tick()
    assert world.queued() == ["first.0.0"]
    world.drain()
    run(world.ledger, first, [0])
    assert world.feeder.tick() == 0  # its lists are not written
    world.backlog.close("first", 0, 60)
    world.feeder.tick()
    assert world.queued() == ["second.0.0"]


def test_paused_and_stopping_jobs_get_nothing(world):
    world.submit(9, job="paused", dest="a")
    world.submit(9, job="stopping", dest="b")
    world.ledger.pause("paused")
    world.ledger.cancel("stopping")

    assert world.feeder.tick() == 0


@pytest.mark.parametrize("harm", ["damaged", "gone"])
def test_a_manifest_that_cannot_be_read_ends_its_job_and_no_other(world, harm):
    for job in ("bad", "good"):
        world.submit(3, job=job, dest=job)
    world.damage(world.first_part("bad", "bad"))
    if harm == "gone":
        world.store.delete(world.first_part("bad", "bad"))

    world.feeder.tick()

    assert world.queued() == ["good.0.0"]
    view = world.ledger.view("bad")
    assert view.status is JobStatus.STOPPING and "its manifest cannot be read" in view.reason


def test_a_bucket_that_is_down_delays_one_job_and_does_not_empty_it(world, monkeypatch):
    for job in ("bad", "good"):
        world.submit(60, job=job, dest=job)
    get, clock = world.store.get, [time.monotonic()]
    monkeypatch.setattr("worker.steward.feeder.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def sometimes(place, *, max_bytes):
        if "bad/" in place.key:
            raise StoreUnavailable("503")
        return get(place, max_bytes=max_bytes)

    monkeypatch.setattr(world.store, "get", sometimes)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            world.feeder.tick()
        for _ in range(3):
            world.drain()
            world.feeder.tick()  # it does not ask again at once: that would take time from the other job
        clock[0] += UNREAD_SECONDS

    bad, good = sorted(world.backlog.active(), key=lambda job: job.view.job)
    assert (bad.outstanding, bad.waiting) == (0, 20)
    assert good.outstanding > 0
    monkeypatch.setattr(world.store, "get", get)
    world.feeder.tick()
    assert any(task.startswith("bad.0.") for task in world.queued())


def test_a_bucket_that_is_away_is_asked_for_one_manifest(world, monkeypatch):
    """Each answer may take half a minute, during which no other job gets chunks."""
    for job in ("one", "two"):
        world.submit(60, job=job, dest=job)
    asked = []

    def get(place, **_):
        asked.append(place)
        raise StoreUnavailable("no answer", bucket=place.bucket)

    monkeypatch.setattr(world.store, "get", get)
    with pytest.raises(StoreUnavailable):
        world.feeder.tick()
    world.feeder.tick()

    assert len(asked) == 1
    assert [job.outstanding for job in world.backlog.active()] == [0, 0]


def test_chunks_that_could_not_be_published_wait_again_unless_a_worker_has_them(world):
    view = world.submit(9)
    assert world.backlog.take("job", 3, epoch=0) == [0, 1, 2]
    assert world.chunks.start(message(view, 1), HERE).verdict is Verdict.RUN

    world.backlog.untake("job", [0, 1, 2], epoch=1)
    assert world.backlog.take("job", 3, epoch=0) == []
    world.backlog.untake("job", [0, 1, 2], epoch=0)

    assert world.backlog.take("job", 3, epoch=0) == [0, 2]


def test_a_record_of_another_version_does_not_stop_the_others(world, caplog):
    world.submit(3)
    world.ledger.connection.client.hset(
        redis_keys.job(world.ledger.connection.prefix, "newer"), mapping={"job": "newer", "status": "dreaming"}
    )
    world.ledger.connection.client.sadd(redis_keys.active(world.ledger.connection.prefix), "newer")

    world.feeder.tick()
    world.bookkeeper.tick()

    assert world.queued() == ["job.0.0"]
    assert "event=job_record_invalid job=newer status: " in log_text(caplog)
    with pytest.raises(ContractError, match="upgrade"):
        world.ledger.view("newer")


# -- reconciler -------------------------------------------------------------------------------------------------------


def test_messages_that_wait_or_are_held_are_in_the_broker(world):
    view = world.submit(9)
    world.dispatcher.send(view, [0, 1])
    world.dispatcher.send(view, [2], express=True)
    all_of_them, asked = {"job.0.0", "job.0.1", "job.0.2"}, {f"job.0.{chunk}" for chunk in range(9)}
    assert world.backlog.in_broker(asked) == all_of_them
    assert world.backlog.in_broker({"job.0.1", "job.1.1", "other.0.1"}) == {"job.0.1"}

    with world.celery.connection_for_read() as connection:
        channel = connection.default_channel
        queue = world.celery.amqp.queues[redis_keys.QUEUE](channel)
        held = queue.get(no_ack=False)
        waiting = world.ledger.connection.client.llen(
            redis_keys.queue(world.ledger.connection.prefix, redis_keys.QUEUE)
        )
        assert (held.headers["id"], waiting) == ("job.0.0", 1)
        assert world.backlog.in_broker(asked) == all_of_them
        assert world.backlog.held("job") and not world.backlog.held("jo")
        held.ack()
        assert world.backlog.in_broker(asked) == {"job.0.1", "job.0.2"}
        assert not world.backlog.held("job")


def test_only_chunks_that_are_silent_and_not_in_the_broker_are_published_again(world):
    world.submit(9)
    world.feeder.tick()
    patient, eager = world.reconciler(3600), world.reconciler(0)

    assert (patient.scan(), eager.scan()) == (0, 0)
    world.drain()
    assert (patient.scan(), eager.scan(), eager.scan()) == (0, 2, 0)
    assert sorted(world.queued()) == ["job.0.0", "job.0.1"]


def test_a_chunk_taken_by_a_leader_that_died_is_found(world):
    world.submit(3)
    world.backlog.take("job", 1, epoch=0)

    assert world.reconciler(0).scan() == 1
    assert world.queued() == ["job.0.0"]


def test_lost_chunks_of_a_paused_job_wait_for_the_resume(world):
    world.submit(3)
    world.feeder.tick()
    world.drain()
    world.ledger.pause("job")

    assert world.reconciler(0).scan() == 0
    assert [(job.outstanding, job.waiting) for job in world.backlog.active()] == [(0, 1)]
    world.ledger.resume("job")
    world.feeder.tick()
    assert world.queued() == ["job.0.0"]


def test_an_error_with_one_job_does_not_hide_the_lost_chunks_of_another(world):
    for job in ("bad", "good"):
        world.submit(3, job=job, dest=job)
        world.backlog.take(job, 1, epoch=0)
    world.damage(world.first_part("bad", "bad"))

    assert world.reconciler(0).scan() == 1
    assert world.queued() == ["good.0.0"]
    assert world.ledger.view("bad").status is JobStatus.STOPPING


# -- dispatcher -------------------------------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch) -> list:
    """Return the messages that a dispatcher publishes."""
    messages: list = []
    monkeypatch.setattr(celery_app, "publish", lambda app, batch, *, queue: messages.extend(batch))
    return messages


def test_chunks_over_the_borders_of_parts_have_the_right_keys(world, sent, monkeypatch):
    monkeypatch.setattr(manifest, "PART_IMAGES", 4)
    view = world.submit(27, chunk_images=10)

    Dispatcher(world.store, None).send(view, range(3))

    assert [(m.start, len(m.keys)) for m in sent] == [(0, 10), (10, 10), (20, 7)]
    assert [key for m in sent for key in m.keys] == [f"{index}.jpg" for index in range(27)]


def test_a_part_is_read_once_for_its_neighbours_and_few_are_kept(world, sent, monkeypatch):
    monkeypatch.setattr(manifest, "PART_IMAGES", 4)
    view = world.submit(80, chunk_images=2)
    reads = []
    get = world.store.get
    monkeypatch.setattr(world.store, "get", lambda place, **how: reads.append(place.key) or get(place, **how))
    sender = Dispatcher(world.store, None)

    for chunk in range(40):
        sender.send(view, [chunk])

    assert len(reads) == len(set(reads)) == 20
    assert len(sender._parts) == _PARTS_KEPT
    sender.send(view, [39])
    assert len(reads) == 20
    sender.send(view, [0])
    assert len(reads) == 21


def test_a_shortened_manifest_is_reported(world, sent):
    view = world.submit(6)
    writer = manifest.Writer(world.store, world.out, "job")
    writer.add(next(world.store.list(manifest.job_folder(world.out, "job"))))
    writer.close()

    with pytest.raises(ContractError, match=r"part-00000\.jsonl\.gz has 1 lines instead of 6"):
        Dispatcher(world.store, None).send(view, [0])
    assert sent == []


@pytest.mark.usefixtures("pauses")
def test_a_queue_that_is_gone_is_reported_and_no_chunk_stays_taken(world):
    gone = world.settings.redis.model_copy(update={"url": "redis://127.0.0.1:1/0"})
    app = celery_app.make_celery(world.settings.model_copy(update={"redis": gone}))
    world.submit(9)

    with pytest.raises(BrokerUnavailable):
        Feeder(world.ledger, Dispatcher(world.store, app)).tick()
    app.close()
    [job] = world.backlog.active()
    assert (job.outstanding, job.waiting) == (0, 3)


# -- results ----------------------------------------------------------------------------------------------------------


def test_parts_are_read_newest_first_and_a_late_writer_replaces_nothing(world):
    dest = world.out

    def write(first_id, *kinds, epoch=0):
        lines = [json.dumps({"index": i, "key": f"{i}", "kind": kind}) for i, kind in enumerate(kinds)]
        outcome_log.write_part(world.store, dest, "job", epoch=epoch, first_id=first_id, lines=lines)

    write("100-0", "failed", "failed", "ok")
    write("100-0", "failed")  # a leader that was delayed
    write("99-7", "ok", epoch=1)  # another server's clock is behind
    write("100-11", "skipped")

    found = [(outcome.index, outcome.kind.value) for outcome in outcome_log.newest_first(world.store, dest, "job")]
    assert found == [(0, "ok"), (0, "skipped"), (2, "ok"), (1, "failed"), (0, "failed"), (0, "failed")]
    names_ = outcome_log.part_names(world.store, dest, "job")
    write("100-0", "failed", "failed", "ok")
    assert outcome_log.part_names(world.store, dest, "job") == names_ == sorted(names_)


def test_facts_in_another_format_are_reported(world):
    dest = world.out
    for body, match in ((b"[1]", "not a JSON object"), (b"{", "not JSON"), (b"\xff\xfe", "not JSON")):
        world.store.put(manifest.job_folder(dest, "job") / "job.json", body, content_type="x")
        with pytest.raises(ContractError, match=match):
            outcome_log.read_json(world.store, dest, "job", "job.json")
    assert outcome_log.read_json(world.store, dest, "other", "job.json") is None


def test_the_window_grows_while_workers_find_it_empty_and_shrinks_again(world):
    """Chunks of one image may take less time than a call of the feeder."""
    world.submit(200, chunk_images=1)
    published = []
    for _ in range(6):
        published.append(world.feeder.tick())
        world.drain()
    published += [world.feeder.tick(), world.feeder.tick(), world.feeder.tick()]

    assert published == [2, 4, 8, 16, 16, 16, 16, 0, 0]
    assert len(world.queued()) == 16
    world.drain()
    assert world.feeder.tick() <= 8
