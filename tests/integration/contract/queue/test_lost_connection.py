"""A worker's connection to the queue is closed as Celery closes it after Redis has gone, on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from kombu import Connection, Consumer, Exchange, Queue
from redis.exceptions import RedisError

from support.shared_workers import PASSWORD, own_redis
from worker.contract import redis_keys
from worker.contract.messages import ChunkMessage
from worker.contract.queue import celery_app
from worker.contract.settings import Settings
from worker.standalone.valkey import Valkey


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with own_redis(tmp_path) as server:
        yield server


@pytest.fixture
def app(server: Valkey) -> Iterator[Celery]:
    settings = Settings.model_validate({"redis": {"url": f"redis://127.0.0.1:{server.port}/0", "password": PASSWORD}})
    app = celery_app.make_celery(settings)
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
