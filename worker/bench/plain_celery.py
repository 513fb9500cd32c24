"""Measure what the same job costs a Redis that plain Celery fills with one message per image.

Celery runs with its defaults, without result backend (each result would cost more still) and with one kept connection:
the cheapest form of plain Celery.

    python -m worker.bench.plain_celery MESSAGES

prints one JSON object and waits for the end of its input. It needs its own Redis, which it empties, alone or behind
Sentinels.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any
from urllib.parse import quote

from celery import Celery

from worker.contract import settings
from worker.contract.ledger.connection import RedisConnection
from worker.contract.settings import RedisSettings

QUEUE = "plain"


def plain_broker(redis: RedisSettings) -> tuple[str, dict[str, Any]]:
    """Return the URL and the transport options by which plain Celery reaches the Redis of the settings.

    Celery lists Sentinels as URLs of their own, which carry the password of the data servers; the name of the primary
    and the login at the Sentinels are options.
    """
    prefix = {"global_keyprefix": f"{redis.prefix}p:"}
    behind = redis.sentinels()
    if behind is None:
        return redis.secret_url(), prefix
    if behind.tls:
        raise ValueError("plain Celery is measured without TLS to Sentinels: write sentinel:// in MASKMILL_REDIS__URL")
    password = redis.password.get_secret_value()
    login = f"{quote(redis.username, safe='')}:{quote(password, safe='')}@" if redis.username or password else ""
    urls = [f"sentinel://{login}{host}:{port}/{behind.database}" for host, port in behind.hosts]
    sentinels = {
        "username": redis.sentinel_username or None,
        "password": redis.sentinel_password.get_secret_value() or None,
        "socket_timeout": 1,
        "socket_connect_timeout": 1,
    }
    return ";".join(urls), {**prefix, "master_name": behind.primary, "sentinel_kwargs": sentinels}


def main(messages: int) -> None:
    """Send messages with source and destination of one image each; print time, count and size in Redis."""
    config = settings.load()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    url, options = plain_broker(config.redis)
    app = Celery("plain", broker=url, set_as_current=False)
    app.conf.update(task_ignore_result=True, broker_transport_options=options)
    with RedisConnection(config.redis, retries=2, client_name="maskmill-bench") as connection:
        wall, cpu = time.monotonic(), time.process_time()
        with app.producer_pool.acquire(block=True) as producer:
            for index in range(messages):
                place = f"catalogue/{index // 1000:06d}/IMG_{index:08d}"
                arguments = [f"s3://photos/{place}.jpg", f"s3://masks/{place}.png"]
                app.send_task("cut", args=arguments, queue=QUEUE, producer=producer)
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        key = f"{config.redis.prefix}p:{QUEUE}"
        queued, size = int(connection.client.llen(key)), int(connection.client.memory_usage(key, samples=0) or 0)
        connection.client.flushdb()
    found = {"messages": queued, "wall_seconds": wall, "cpu_seconds": cpu, "redis_bytes": size}
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
