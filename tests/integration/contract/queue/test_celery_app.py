"""The Celery app and its messages, on a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import redis
from celery import Celery
from kombu import Consumer
from kombu.exceptions import ContentDisallowed
from pydantic import SecretStr

from support.installation import Installation
from support.proxy import Proxy
from worker.contract import redis_keys
from worker.contract.errors import BrokerUnavailable
from worker.contract.messages import ChunkMessage
from worker.contract.queue import celery_app

# Celery's backend calls commands that redis-py has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

TYPICAL_KEYS = tuple(f"catalogue/2026/autumn/shoes/IMG_{4711 + index:06d}-front-view.jpg" for index in range(16))

MAX_MESSAGE_BYTES = 1600
"""Largest queued message with 16 typical keys: a window of a thousand chunks stays below 2 MiB of Redis."""


@pytest.fixture
def server(installation: Installation) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(installation.settings.redis.secret_url(), decode_responses=True) as client:
        yield client


@pytest.fixture
def celery(installation: Installation) -> Iterator[Celery]:
    app = celery_app.make_celery(installation.settings, client_name=f"test-{installation.bucket}")
    yield app
    app.close()


def chunks(count: int, job: str = "job") -> list[ChunkMessage]:
    return [ChunkMessage(job=job, chunk=number, start=number, keys=(f"{number}.jpg",)) for number in range(count)]


def received(app: Celery, accept=None) -> list[tuple[dict, object]]:
    """Receive all messages in the queue and return their headers and bodies."""
    found = []
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[redis_keys.QUEUE]
        with Consumer(connection, [queue], accept=accept or app.conf.accept_content) as consumer:
            consumer.register_callback(lambda body, message: (found.append((message.headers, body)), message.ack()))
            while True:
                try:
                    connection.drain_events(timeout=0.5)
                except TimeoutError:
                    return found


def test_1200_messages_are_queued_with_their_ids(installation, celery, server):
    sent = celery_app.publish(celery, chunks(1200))

    key = f"{installation.settings.redis.prefix}{redis_keys.QUEUE}"
    ids = [json.loads(message)["headers"]["id"] for message in server.lrange(key, 0, -1)]
    assert sent == server.llen(key) == 1200
    assert sorted(ids) == sorted(redis_keys.task_id("job", 0, number) for number in range(1200))


def test_messages_arrive_in_order_and_whole(celery):
    messages = [ChunkMessage(job="job", chunk=n, start=2 * n, keys=("ü #1.jpg", "a b+%.jpg")) for n in range(3)]

    celery_app.publish(celery, messages)

    found = received(celery)
    assert [ChunkMessage.read(body[0][0]) for _, body in found] == messages
    assert {headers["task"] for headers, _ in found} == {redis_keys.TASK_CHUNK}


def test_publishing_no_messages_sends_none(celery):
    assert celery_app.publish(celery, []) == 0


def subscriptions(server: redis.Redis) -> int:
    """Number of SUBSCRIBE commands that the server has executed."""
    return server.info("commandstats").get("cmdstat_subscribe", {"calls": 0})["calls"]


def test_sending_subscribes_to_nothing_and_leaves_no_result(installation, celery, server):
    before = subscriptions(server)

    celery_app.publish(celery, chunks(20))

    assert subscriptions(server) == before
    assert server.pubsub_channels("*celery-task-meta-*") == []
    assert server.keys(f"{installation.settings.redis.prefix}*celery-task-meta-*") == []


def test_the_stock_backend_subscribes_for_each_message(installation, server, monkeypatch):
    """Control run of the test above: the stock backend is what it guards against."""
    monkeypatch.setattr(celery_app.RedisBackend, "on_task_call", celery_app.StockRedisBackend.on_task_call)
    app = celery_app.make_celery(installation.settings)
    before = subscriptions(server)

    celery_app.publish(app, chunks(3))
    app.backend.result_consumer.stop()
    app.close()

    assert subscriptions(server) == before + 3


def test_every_key_has_the_prefix(installation, celery, server):
    prefix = installation.settings.redis.prefix
    before = set(server.keys("*"))

    celery_app.publish(celery, chunks(1))
    celery.backend.store_result("job.0.0", {"ok": 1}, "SUCCESS")

    new = set(server.keys("*")) - before
    assert f"{prefix}{redis_keys.QUEUE}" in new
    assert any("celery-task-meta-job.0.0" in key for key in new)
    assert [key for key in new if not key.startswith(prefix)] == []


def test_a_message_of_typical_keys_is_small(installation, celery, server):
    message = ChunkMessage(job="20261122-184111-a1b2c3", chunk=123, start=1968, keys=TYPICAL_KEYS)

    celery_app.publish(celery, [message])

    [queued] = server.lrange(f"{installation.settings.redis.prefix}{redis_keys.QUEUE}", 0, -1)
    assert len(queued.encode()) < MAX_MESSAGE_BYTES
    assert installation.settings.s3.secret_access_key.get_secret_value() not in queued
    assert installation.settings.redis.password.get_secret_value() not in queued


def test_only_json_is_read(installation, celery):
    with celery.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish({"any": "thing"}, routing_key=redis_keys.QUEUE, serializer="pickle")

    assert received(celery) == [], "the message was admitted"
    with celery.connection_for_read() as connection, connection.channel() as channel:
        producer = connection.Producer()
        producer.publish({"any": "thing"}, routing_key=redis_keys.QUEUE, serializer="pickle")
        behind = celery.amqp.queues[redis_keys.QUEUE](channel).get(accept=celery.conf.accept_content)
        with pytest.raises(ContentDisallowed):
            behind.decode()
    assert celery.conf.accept_content == ["json"]
    assert (celery.conf.task_serializer, celery.conf.result_serializer) == ("json", "json")


def test_options_reach_the_connection(installation, celery, server):
    with celery.connection_for_read() as connection:
        channel = connection.default_channel
        channel.client.ping()
        asked = channel.client.connection_pool.connection_kwargs
        clients = {entry["name"] for entry in server.client_list()}

        assert channel.visibility_timeout == installation.settings.engine.lease_seconds
        assert (channel.unacked_restore_limit, channel.unacked_mutex_expire) == (100, 30)
        assert channel.priority_steps == [0]
        assert channel.global_keyprefix == installation.settings.redis.prefix
        assert asked["socket_timeout"] == installation.settings.redis.timeout_seconds
        assert (asked["socket_connect_timeout"], asked["health_check_interval"]) == (5, 10)
        assert f"test-{installation.bucket}" in clients


def test_the_result_of_an_unknown_id_is_pending(celery):
    began = time.monotonic()

    assert celery.AsyncResult("job.0.99").state == "PENDING"
    assert time.monotonic() - began < 5


def test_a_stored_result_is_read_by_the_chunks_id(installation, celery, server):
    celery.backend.store_result(redis_keys.task_id("job", 0, 3), {"outcomes": ["ok"]}, "SUCCESS")

    result = celery.AsyncResult("job.0.3")

    assert (result.state, result.result) == ("SUCCESS", {"outcomes": ["ok"]})
    [key] = server.keys(f"{installation.settings.redis.prefix}*celery-task-meta-job.0.3")
    assert 0 < server.ttl(key) <= installation.settings.jobs.result_minutes * 60


def test_an_unreachable_queue_raises(installation, pauses):
    gone = installation.settings.model_copy(
        update={"redis": installation.settings.redis.model_copy(update={"url": "redis://127.0.0.1:1/0"})}
    )
    app = celery_app.make_celery(gone)
    began = pauses.monotonic()

    with pytest.raises(BrokerUnavailable, match="cannot be reached") as raised:
        celery_app.publish(app, chunks(3))

    assert raised.value.retryable
    assert pauses.monotonic() - began < 20
    app.close()


def test_a_connection_that_dies_during_publishing_raises(installation):
    """The batch fails, not the connection: it is unknown whether the messages arrived."""
    with Proxy(urlsplit(installation.settings.redis.url).port) as line:
        redis_settings = installation.settings.redis.model_copy(
            update={"url": line.url(installation.settings.redis.url), "timeout_seconds": 0.3}
        )
        app = celery_app.make_celery(installation.settings.model_copy(update={"redis": redis_settings}))
        assert celery_app.publish(app, chunks(1)) == 1
        line.make_half_open()

        with pytest.raises(BrokerUnavailable, match="cannot be reached: Timeout"):
            celery_app.publish(app, chunks(2))

        assert celery_app.publish(app, chunks(3)) == 3, "a new connection works"
        app.close()


@pytest.mark.usefixtures("pauses")
def test_a_wrong_password_raises_without_naming_it(installation):
    wrong = installation.settings.redis.model_copy(update={"password": SecretStr("wrong-and-secret")})
    app = celery_app.make_celery(installation.settings.model_copy(update={"redis": wrong}))

    with pytest.raises(BrokerUnavailable) as raised:
        celery_app.publish(app, chunks(1))

    assert "wrong-and-secret" not in str(raised.value)
    app.close()
