"""Lease renewal on a real consumer, with a visibility timeout of one second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import redis
from celery import Celery
from kombu import Consumer
from redis.exceptions import ConnectionError as RedisConnectionError

from support.installation import Installation
from support.log_lines import log_text
from worker.consumer import lease
from worker.contract import redis_keys
from worker.contract.messages import ChunkMessage
from worker.contract.queue import celery_app
from worker.contract.settings import Settings

VISIBILITY_SECONDS = 1.0


class Reader:
    """A consumer that keeps every message without acknowledging it."""

    def __init__(self, app: Celery, prefetch: int = 1) -> None:
        self.connection = app.connection_for_read()
        self.channel = self.connection.channel()
        self.messages: list = []
        self._consumer = Consumer(self.channel, [app.amqp.queues[redis_keys.QUEUE]], accept=["json"])
        self._consumer.qos(prefetch_count=prefetch)  # as a worker does; 0: no limit
        self._consumer.register_callback(lambda body, message: self.messages.append(message))
        self._consumer.consume()

    def drain(self, seconds: float = 0.3, count: float = math.inf) -> list:
        """Wait for `seconds`, or until there are `count`, and return the messages received so far."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and len(self.messages) < count:
            try:
                self.connection.drain_events(timeout=left)
            except TimeoutError:
                break
        return self.messages

    def sweep(self) -> None:
        """Put back messages with an expired lease, as every worker does at intervals."""
        self.channel.qos.restore_visible(interval=1)


@pytest.fixture
def app(installation: Installation) -> Iterator[Celery]:
    app = celery_app.make_celery(installation.settings, client_name=f"lease-{installation.bucket}")
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options,
        "visibility_timeout": VISIBILITY_SECONDS,
    }
    celery_app.publish(app, [ChunkMessage(job="job", chunk=0, start=0, keys=("a.jpg",))])
    yield app
    app.close()


@pytest.fixture
def reader_of(app: Celery) -> Iterator[Callable[..., Reader]]:
    made: list[Reader] = []

    def make(prefetch: int = 1) -> Reader:
        made.append(Reader(app, prefetch))
        return made[-1]

    yield make
    for reader in made:
        reader.connection.close()


@pytest.fixture
def score(installation: Installation) -> Iterator[Callable[..., float | None]]:
    """Return a function that reads, or first sets, the timestamp of a message over a separate connection."""
    key = f"{installation.settings.redis.prefix}unacked_index"
    with redis.Redis.from_url(installation.settings.redis.secret_url(), decode_responses=True) as server:

        def score(tag: str, new: float | None = None) -> float | None:
            if new is not None:
                server.zadd(key, {tag: new})
            return server.zscore(key, tag)

        yield score


@pytest.mark.parametrize("renewing", [True, False], ids=["renewed", "control"])
def test_only_a_renewed_message_stays_with_its_worker(reader_of, renewing):
    holder, rival = reader_of(), reader_of()
    [message] = holder.drain() or rival.drain()
    if rival.messages:
        holder, rival = rival, holder

    for _ in range(5):  # a quarter longer than the visibility timeout
        if renewing:
            assert lease.renew(holder.channel) == 1
        time.sleep(VISIBILITY_SECONDS / 4)
    rival.sweep()
    time.sleep(0.1)
    again = [*holder.drain()[1:], *rival.drain()]

    assert [copy.delivery_tag for copy in again] == ([] if renewing else [message.delivery_tag])
    assert all(copy.headers["id"] == "job.0.0" for copy in again)
    assert not renewing or not again


def test_an_acknowledged_message_is_not_brought_back(reader_of, score):
    reader = reader_of()
    [message] = reader.drain(5, count=1)
    assert score(message.delivery_tag) is not None
    held = reader.channel.qos._delivered.copy()
    message.ack()
    assert score(message.delivery_tag) is None

    # A renewal that read its tags a moment before the acknowledgement.
    reader.channel.qos._delivered.update(held)
    renewed = lease.renew(reader.channel)
    reader.channel.qos._delivered.clear()

    assert renewed == 1
    assert score(message.delivery_tag) is None
    assert lease.renew(reader.channel) == 0


def test_renewing_never_shortens_a_lease(reader_of, score):
    reader = reader_of()
    [message] = reader.drain(5, count=1)
    later = score(message.delivery_tag, time.time() + 1000)

    lease.renew(reader.channel)

    assert score(message.delivery_tag) == later


def test_a_lost_connection_is_logged_and_the_next_renewal_works(reader_of, score, monkeypatch, caplog):
    reader = reader_of()
    [message] = reader.drain(5, count=1)
    score(message.delivery_tag, 1.0)

    for error in (RedisConnectionError("gone"), ConnectionResetError("gone")):
        with monkeypatch.context() as patch:
            patch.setattr(redis.Redis, "zadd", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
            assert lease.renew(reader.channel) == 0
    assert log_text(caplog).count("event=lease_renewal_failed") == 2

    assert lease.renew(reader.channel) == 1
    assert score(message.delivery_tag) == pytest.approx(time.time(), abs=5)


def test_a_connection_that_redis_cut_is_renewed_on_a_new_one(app, reader_of, score, installation):
    reader = reader_of()
    [message] = reader.drain(5, count=1)
    score(message.delivery_tag, 1.0)
    with redis.Redis.from_url(installation.settings.redis.secret_url(), decode_responses=True) as server:
        for entry in server.client_list():
            if entry["name"] == f"lease-{installation.bucket}":
                server.client_kill_filter(_id=entry["id"])

    renewed = [lease.renew(reader.channel), lease.renew(reader.channel)]

    assert renewed[-1] == 1
    assert score(message.delivery_tag) == pytest.approx(time.time(), abs=5)


def test_renewing_while_waiting_for_another_message_does_not_lose_it(app, reader_of):
    reader = reader_of(prefetch=2)
    assert len(reader.drain(5, count=1)) == 1  # and requests a second one now
    second = ChunkMessage(job="job", chunk=1, start=1, keys=("b.jpg",))
    celery_app.publish(app, [second])

    lease.renew(reader.channel)

    assert [message.headers["id"] for message in reader.drain(5, count=2)] == ["job.0.0", "job.0.1"]


def test_three_renewals_may_fail_before_a_lease_ends():
    assert lease.RENEWALS >= 4  # so three of them come before it expires


class Working:
    """A task as Celery records it."""

    def __init__(self, message) -> None:
        self.message = message


def test_a_message_without_a_task_is_put_back_at_the_second_check(app, reader_of, installation):
    reader = reader_of()
    [message] = reader.drain(5, count=1)

    assert lease.put_back(reader.channel, set()) == {message.delivery_tag}
    assert reader.drain() == [message]
    assert lease.put_back(reader.channel, {message.delivery_tag}) == set()

    again = reader.drain(5, count=2)[1:]
    assert [copy.headers["id"] for copy in again] == ["job.0.0"], "the place is free and the message is back"


def test_a_message_that_is_being_worked_on_stays(reader_of, monkeypatch):
    reader = reader_of()
    [message] = reader.drain(5, count=1)
    task = Working(message)
    monkeypatch.setattr(lease.state, "reserved_requests", {task})

    loose = lease.put_back(reader.channel, lease.put_back(reader.channel, set()))

    assert loose == set()
    assert message.delivery_tag in reader.channel.qos._delivered


def test_an_acknowledgement_that_arrived_is_not_undone(reader_of, score):
    reader = reader_of()
    [message] = reader.drain(5, count=1)
    held = reader.channel.qos._delivered.copy()
    message.ack()
    reader.channel.qos._flush()
    reader.channel.qos._delivered.update(held)  # Redis did it, but the answer was lost

    lease.put_back(reader.channel, lease.put_back(reader.channel, set()))

    assert reader.drain(0.75) == [message]
    assert score(message.delivery_tag) is None


def test_putting_a_message_back_is_retried(reader_of, monkeypatch, caplog):
    reader = reader_of()
    [message] = reader.drain(5, count=1)
    loose = lease.put_back(reader.channel, set())
    with monkeypatch.context() as patch:
        patch.setattr(redis.Redis, "transaction", lambda *_, **__: (_ for _ in ()).throw(RedisConnectionError("gone")))
        loose = lease.put_back(reader.channel, loose)
    assert loose == {message.delivery_tag}
    assert "event=requeue_failed" in log_text(caplog)

    assert lease.put_back(reader.channel, loose) == set()
    assert len(reader.drain(5, count=2)) == 2


def test_an_entry_that_is_not_json_stops_no_renewal(reader_of, caplog):
    """A client of Redis may overwrite the entry. The leases of all other messages are still renewed."""
    reader = reader_of()
    [message] = reader.drain(5, count=1)
    with reader.channel.conn_or_acquire() as client:
        client.hset(reader.channel.unacked_key, message.delivery_tag, "not JSON")

    assert lease.put_back(reader.channel, {message.delivery_tag}) == {message.delivery_tag}
    assert "event=requeue_failed" in log_text(caplog)


def test_renewal_lives_as_long_as_the_connection():
    entries: list[tuple] = []

    def call_repeatedly(*entry):
        entries.append(entry)
        return SimpleNamespace(cancel=entries.clear)

    channel = object()
    parent = SimpleNamespace(
        app=SimpleNamespace(maskmill=Settings(engine={"lease_seconds": 12})),
        timer=SimpleNamespace(call_repeatedly=call_repeatedly),
        task_consumer=SimpleNamespace(channel=channel),
    )
    step = lease.LeaseRenewal(parent)

    step.start(parent)
    assert entries == [(3, step.maintain, (channel,))]
    step.stop(parent)
    step.stop(parent)  # Celery stops a step that never started, and one that was stopped

    assert entries == []
