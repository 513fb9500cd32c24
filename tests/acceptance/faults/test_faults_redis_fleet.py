"""Many workers start and are killed at the same time. Every message returns within its bound."""

from __future__ import annotations

import sys
import time

import pytest
import redis

from support import commands, fleet
from support.fault_timing import LEASE, MUTEX, SWEEP
from support.shared_workers import client, installation_at, own_redis
from worker.contract import redis_keys
from worker.contract.messages import ChunkMessage
from worker.contract.queue.celery_app import make_celery, publish

RESTORE_SECONDS = 0.05
"""To restore one message on a busy machine: a transaction of WATCH, HGET, MULTI, ZREM, HDEL, RPUSH, EXEC."""


@pytest.mark.parametrize("consumers", [40, pytest.param(200, id="fleet", marks=pytest.mark.long)])
def test_all_messages_of_a_killed_fleet_return(standalone, cache, tmp_path, consumers):
    with own_redis(tmp_path) as server:
        installation = installation_at(standalone, server.url, cache)
        prefix = installation.settings.redis.prefix
        with make_celery(installation.settings) as celery:
            sent = [ChunkMessage(job="job", chunk=number, start=number, keys=("a",)) for number in range(consumers)]
            publish(celery, sent)
        with client(installation) as redis_client:
            first = fleet.start(installation, consumers)
            try:
                commands.wait_for(
                    lambda: redis_client.hlen(redis_keys.unacked(prefix)) == consumers,
                    "all consumers to hold a message",
                )
            finally:
                first.kill()
                first.wait()
            killed, killed_at = time.monotonic(), time.time()
            redis_client.config_resetstat()

            second = fleet.start(installation, consumers)
            try:
                bound = LEASE + SWEEP + MUTEX + consumers * RESTORE_SECONDS
                commands.wait_for(
                    lambda: held_since(redis_client, prefix, killed_at) == consumers, "all messages", bound + 30
                )
                took = time.monotonic() - killed
            finally:
                second.kill()
                second.wait()
            stats = redis_client.info("commandstats")

    watched, done = (stats[f"cmdstat_{name}"]["calls"] for name in ("watch", "exec"))
    sys.stdout.write(f"{consumers} messages back {took:.1f} s after the kill; {watched} WATCH, {done} EXEC\n")
    assert took <= bound + 15
    assert watched < 3 * consumers, "consumers that restore messages obstruct each other"


def held_since(redis_client: redis.Redis, prefix: str, at: float) -> int:
    """Return how many messages were delivered since `at`."""
    return redis_client.zcount(f"{prefix}unacked_index", at, "+inf")
