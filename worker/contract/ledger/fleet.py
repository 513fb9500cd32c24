"""Who is there: live worker processes and what they run, and who leads."""

from __future__ import annotations

import secrets
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field

from worker.contract import redis_keys
from worker.contract.input_size import InputSize
from worker.contract.ledger.connection import RedisLink

BEAT_SECONDS = 10.0
"""Between two signs of life of a worker process."""

GONE_SECONDS = 35.0
"""Silence after which it counts as gone: three signs of life missed."""

_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RESIGN = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class WorkerFacts(BaseModel):
    """What one worker process runs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    cpus: tuple[int, ...] = ()
    streams: int
    threads: int
    model: str
    size: InputSize = Field(description="height and width of the network's input in pixels")
    precision: str
    digest: str = Field(default="", description="of the network, as outputs carry it; empty: not told")
    seconds_per_image: float | None = Field(default=None, description="of the last chunk: wall time over its images")


class Fleet:
    """Over a `RedisLink` of the caller's."""

    def __init__(self, link: RedisLink) -> None:
        """Nothing is sent yet."""
        self._link = link
        self._prefix = link.prefix

    def beat(self, worker: str) -> None:
        """Tell that a worker process is alive."""

        def write() -> None:
            seconds, _ = self._link.client.time()
            self._link.client.zadd(redis_keys.workers(self._prefix), {worker: seconds})

        self._link.call(write)

    def enrol(self, facts: WorkerFacts) -> None:
        """Tell what a worker process runs."""
        key = redis_keys.worker_facts(self._prefix)
        self._link.call(lambda: self._link.client.hset(key, facts.name, facts.model_dump_json()))

    def leave(self, worker: str) -> None:
        """Tell that a worker process ends."""

        def write() -> None:
            pipeline = self._link.client.pipeline(transaction=False)
            pipeline.zrem(redis_keys.workers(self._prefix), worker)
            pipeline.hdel(redis_keys.worker_facts(self._prefix), worker)
            pipeline.execute()

        self._link.call(write)

    def live(self) -> list[str]:
        """Worker processes heard of lately."""

        def read() -> list[str]:
            seconds, _ = self._link.client.time()
            return cast(
                list[str],
                self._link.client.zrangebyscore(redis_keys.workers(self._prefix), seconds - GONE_SECONDS, "+inf"),
            )

        return cast(list[str], self._link.call(read))

    def facts(self) -> list[WorkerFacts]:
        """What the live worker processes run; one that is still loading its model is left out."""
        live = self.live()
        if not live:
            return []
        lines = self._link.call(lambda: self._link.client.hmget(redis_keys.worker_facts(self._prefix), live))
        return [WorkerFacts.model_validate_json(line) for line in lines if line]

    def forget_gone(self) -> None:
        """Drop what is known of processes that ended without saying so, a day ago or longer."""

        def write() -> None:
            seconds, _ = self._link.client.time()
            gone = self._link.client.zrangebyscore(redis_keys.workers(self._prefix), "-inf", seconds - 86400)
            if gone:
                self._link.client.hdel(redis_keys.worker_facts(self._prefix), *gone)
                self._link.client.zrem(redis_keys.workers(self._prefix), *gone)

        self._link.call(write)


class Leadership:
    """One role that one process of the fleet has at a time, until it stops renewing."""

    def __init__(self, link: RedisLink, role: str, seconds: float) -> None:
        """Stand for a role.

        Args:
            link: to Redis.
            role: which.
            seconds: after the last renewal another may take over; renew at least three times as often.
        """
        self._link, self._key = link, redis_keys.leader(link.prefix, role)
        self._milliseconds = int(seconds * 1000)
        self._token = secrets.token_hex(8)
        self._renew: Any = link.client.register_script(_RENEW)
        self._resign: Any = link.client.register_script(_RESIGN)

    def hold(self) -> bool:
        """Renew the role or take a vacant one. False: another has it."""

        def renew_or_take() -> bool:
            if self._renew(keys=[self._key], args=[self._token, self._milliseconds]):
                return True
            return bool(self._link.client.set(self._key, self._token, nx=True, px=self._milliseconds))

        return bool(self._link.call(renew_or_take))

    def resign(self) -> None:
        """Leave the role to whoever wants it."""
        self._link.call(lambda: self._resign(keys=[self._key], args=[self._token]))
