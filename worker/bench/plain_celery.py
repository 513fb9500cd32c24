"""Measure what the same job costs a Redis that plain Celery fills with one message per image.

Celery runs with its defaults, without result backend (each result would cost more still) and with one kept connection:
the cheapest form of plain Celery.

    python -m worker.bench.plain_celery MESSAGES

prints one JSON object and waits for the end of its input. It needs its own Redis, which it empties.
"""

from __future__ import annotations

import json
import os
import sys
import time

from celery import Celery

from worker.contract import settings
from worker.contract.ledger.connection import RedisConnection

QUEUE = "plain"


def main(messages: int) -> None:
    """Send messages with source and destination of one image each; print time, count and size in Redis."""
    config = settings.load()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    app = Celery("plain", broker=config.redis.secret_url(), set_as_current=False)
    app.conf.update(task_ignore_result=True, broker_transport_options={"global_keyprefix": f"{config.redis.prefix}p:"})
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
