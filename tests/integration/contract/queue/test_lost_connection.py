"""A worker's connection to the queue is closed as Celery closes it after Redis has gone, on a real server."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery
from kombu import Connection, Consumer, Exchange, Queue
from kombu.asynchronous import Hub
from kombu.transport.redis import Channel as StockChannel
from redis.exceptions import OutOfMemoryError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from support.shared_workers import PASSWORD, own_redis
from worker.contract import redis_keys
from worker.contract.ledger.primary import ConnectionClosed
from worker.contract.messages import ChunkMessage
from worker.contract.queue import admission, celery_app
from worker.contract.settings import Settings
from worker.standalone.valkey import Valkey


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with own_redis(tmp_path) as server:
        yield server


@pytest.fixture
def operator(server: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis(port=server.port, password=PASSWORD, decode_responses=True) as client:
        yield client


@pytest.fixture
def app(server: Valkey) -> Iterator[Celery]:
    address = {"url": f"redis://127.0.0.1:{server.port}/0", "password": PASSWORD, "timeout_seconds": 1.5}
    app = celery_app.make_celery(Settings.model_validate({"redis": address}))
    celery_app.publish(app, [ChunkMessage(job="job", chunk=0, start=0, keys=("a.jpg",))])
    yield app
    app.close()


def listen_for_commands(connection: Connection) -> None:
    """Open the second channel of every worker, which is closed first and fails to delete its queue."""
    exchange = Exchange("test.pidbox", type="fanout", delivery_mode="transient")
    Consumer(connection.channel(), [Queue("test.commands", exchange, auto_delete=True)]).consume()


@pytest.fixture
def connection(app: Celery) -> Iterator[Connection]:
    """A connection that holds a message and waits for a second one, like a worker that fetches ahead."""
    messages: list[object] = []
    with app.connection_for_read() as connection:
        consumer = Consumer(connection, [app.amqp.queues[redis_keys.QUEUE]], accept=["json"])
        consumer.qos(prefetch_count=2)
        consumer.register_callback(lambda body, message: messages.append(message))
        consumer.consume()
        while not messages:
            connection.drain_events(timeout=10)
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.1)
        listen_for_commands(connection)
        assert connection.default_channel._in_poll, "no request for the next message is open: the test proves nothing"
        yield connection


def test_a_channel_closes_although_the_answer_to_its_request_never_comes(connection: Connection, server: Valkey):
    channel = connection.default_channel
    server.kill()

    with pytest.raises(RedisError):  # from putting back the message
        channel.close()

    assert channel.closed


def test_closing_after_redis_has_gone_raises_nothing(connection: Connection, server: Valkey):
    """Celery connects again after this. An exception would end the worker instead."""
    server.kill()

    connection.collect(socket_timeout=1)  # Celery suppresses what this raises, and closes once more
    connection.close()


def test_every_channel_is_closed_although_its_queue_cannot_be_deleted(connection: Connection, server: Valkey):
    channels = list(connection.transport.channels)
    assert len(channels) == 2
    server.kill()

    connection.collect(socket_timeout=1)
    connection.close()

    assert [channel.closed for channel in channels] == [True, True]
    assert not any(channel.__dict__.get("subclient") and channel.subclient.connection for channel in channels)


def test_closing_raises_errors_of_the_connection_only(connection: Connection, monkeypatch: pytest.MonkeyPatch):
    """Celery ends on any other."""
    with monkeypatch.context() as patch, pytest.raises(ConnectionClosed):
        patch.setattr(StockChannel, "_disconnect_pools", lambda channel: channel.no_such_name)
        connection.default_channel.close()


def test_a_late_acknowledgement_raises_an_error_of_the_connection(app: Celery):
    """Celery ends on any other."""
    with app.connection_for_read() as connection:
        channel = connection.channel()
    assert channel.closed

    with pytest.raises(ConnectionClosed):
        channel.basic_ack("tag")


def test_a_connection_that_the_event_loop_cannot_use_is_closed(
    app: Celery, operator: redis.Redis, monkeypatch: pytest.MonkeyPatch
):
    """Celery tries again at once and forgets it: each worker would open ten connections a second to a full Redis."""
    monkeypatch.setattr(admission, "PAUSE_SECONDS", 0.0)
    before = len(operator.client_list())
    operator.config_set("maxmemory", 1)

    for _ in range(3):
        connection = app.connection_for_read().ensure_connection()
        with pytest.raises(OutOfMemoryError):
            connection.transport.register_with_event_loop(connection.connection, Hub())
        del connection
    gc.collect()

    assert len(operator.client_list()) == before


def test_the_event_loop_forgets_a_closed_connection(app: Celery):
    hub, counts = Hub(), []
    for _ in range(3):
        with app.connection_for_read().ensure_connection() as connection:
            connection.transport.register_with_event_loop(connection.connection, hub)
            counts.append(len(hub.on_tick))

    assert counts == [1, 1, 1]
    assert not hub.on_tick


def test_waiting_for_a_command_ends_with_the_time_out(app: Celery):
    """The event loop reads when it sees data: if only a part of it ever arrives, no message would be taken any more."""
    errors: list[BaseException] = []

    def read() -> None:
        try:
            channel._receive()
        except RedisTimeoutError as error:
            errors.append(error)

    with app.connection_for_read() as connection:
        listen_for_commands(connection)
        [channel] = [one for one in connection.transport.channels if one.active_fanout_queues]
        connection.transport.cycle._register_LISTEN(channel)
        channel._receive()  # the answer to the subscription
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        reader.join(30)

    assert errors
