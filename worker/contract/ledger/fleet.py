"""The live worker processes of an installation and what they run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Annotated, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from worker.contract import redis_keys
from worker.contract.input_size import InputSize
from worker.contract.ledger.connection import RedisConnection

HEARTBEAT_SECONDS = 10.0
"""Interval between two heartbeats of a worker process."""

GONE_SECONDS = 35.0
"""Silence after which a worker process counts as gone: three missed heartbeats."""

_FORGET_SECONDS = 86_400

_FAILURE = "start-failure:"
"""Begins the fields of failures to start, in the hash of the facts. Names of processes contain no colon."""

_MAX_REASON = 2000
"""Characters."""

_MAX_NAME = 1000
"""Characters."""

_Model = TypeVar("_Model", bound=BaseModel)


class WorkerFacts(BaseModel):
    """What one worker process runs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(max_length=_MAX_NAME)
    cpus: tuple[int, ...] = Field(default=(), max_length=10_000)
    streams: int = Field(ge=1)
    threads: int = Field(ge=1)
    model: str = Field(max_length=_MAX_NAME)
    size: InputSize = Field(description="height and width of the network's input in pixels")
    precision: str = Field(max_length=_MAX_NAME)
    digest: str = Field(
        default="", max_length=_MAX_NAME, description="of the network, as in the metadata of outputs; empty if unknown"
    )
    seconds_per_image: Annotated[float, Field(gt=1e-6, le=1e6)] | None = Field(
        default=None, description="of the last chunk: wall time over its images"
    )


class StartFailure(BaseModel):
    """Why the workers of a node could not start when they last tried."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    node: str = Field(max_length=_MAX_NAME)
    reason: str = Field(max_length=_MAX_REASON)
    at: float = Field(ge=0, le=1e11, description="by the clock of Redis, in Unix seconds")


class Fleet:
    """Works over a `RedisConnection` of the caller."""

    def __init__(self, connection: RedisConnection) -> None:
        """Send nothing yet."""
        self._connection = connection
        self._prefix = connection.prefix

    def heartbeat(self, worker: str) -> None:
        """Record that a worker process is alive."""

        def write() -> None:
            seconds, _ = self._connection.client.time()
            self._connection.client.zadd(redis_keys.workers(self._prefix), {worker: seconds})

        self._connection.call(write)

    def register(self, facts: WorkerFacts) -> None:
        """Store what a worker process runs, in place of what is stored for it."""
        key, failure = redis_keys.worker_facts(self._prefix), _failure_field(facts.name)

        def write() -> None:
            pipeline = self._connection.client.pipeline(transaction=False)
            pipeline.hset(key, facts.name, facts.model_dump_json())
            pipeline.hdel(key, failure)
            pipeline.execute()

        self._connection.call(write)

    def report_failure(self, worker: str, reason: str) -> None:
        """Record why a worker process, or a node as a whole, cannot start; the last reason of a node counts.

        It is kept until a process of the node has started, for a day at most.

        Args:
            worker: name of the process, `PROCESS@NODE`, or of the node.
            reason: text for people, without secrets.
        """

        def write() -> None:
            seconds, micros = self._connection.client.time()
            node = worker.rpartition("@")[2]
            failure = StartFailure(node=node, reason=reason[:_MAX_REASON], at=seconds + micros / 1e6)
            facts = redis_keys.worker_facts(self._prefix)
            self._connection.client.hset(facts, _failure_field(worker), failure.model_dump_json())

        self._connection.call(write)

    def last_failure(self) -> StartFailure | None:
        """Return the newest failure to start; None if there is none of the last day."""

        def read() -> list[StartFailure]:
            seconds, _ = self._connection.client.time()
            found = self._connection.client.hgetall(redis_keys.worker_facts(self._prefix))
            failures = _readable(StartFailure, (text for name, text in found.items() if _is_failure(name)))
            return [failure for failure in failures if failure.at > seconds - _FORGET_SECONDS]

        failures = cast(list[StartFailure], self._connection.call(read))
        return max(failures, key=lambda failure: failure.at, default=None)

    def withdraw(self, worker: str) -> None:
        """Let a worker process not count as live until its next heartbeat; what it runs stays known."""
        self._connection.call(lambda: self._connection.client.zrem(redis_keys.workers(self._prefix), worker))

    def deregister(self, worker: str) -> None:
        """Remove a worker process that stops; without this it counts as live for `GONE_SECONDS`."""

        def write() -> None:
            pipeline = self._connection.client.pipeline(transaction=False)
            pipeline.zrem(redis_keys.workers(self._prefix), worker)
            pipeline.hdel(redis_keys.worker_facts(self._prefix), worker)
            pipeline.execute()

        self._connection.call(write)

    def live(self) -> list[str]:
        """Return the names of the worker processes with a heartbeat within `GONE_SECONDS`."""

        def read() -> list[str]:
            seconds, _ = self._connection.client.time()
            return cast(
                list[str],
                self._connection.client.zrangebyscore(redis_keys.workers(self._prefix), seconds - GONE_SECONDS, "+inf"),
            )

        return cast(list[str], self._connection.call(read))

    def facts(self) -> list[WorkerFacts]:
        """Return the facts of all live worker processes, except those that are still loading their model."""
        live = self.live()
        if not live:
            return []
        key = redis_keys.worker_facts(self._prefix)
        lines = self._connection.call(lambda: self._connection.client.hmget(key, live))
        return _readable(WorkerFacts, filter(None, lines))

    def forget_gone(self) -> None:
        """Delete worker processes and failures to start of a day ago or earlier: killed ones do not deregister."""

        def write() -> None:
            seconds, _ = self._connection.client.time()
            workers = redis_keys.workers(self._prefix)
            gone = self._connection.client.zrangebyscore(workers, "-inf", seconds - _FORGET_SECONDS)
            if gone:
                self._connection.client.hdel(redis_keys.worker_facts(self._prefix), *gone)
                self._connection.client.zrem(workers, *gone)
            facts = redis_keys.worker_facts(self._prefix)
            failed = [name for name in self._connection.client.hkeys(facts) if _is_failure(name)]
            for name, text in zip(failed, self._connection.client.hmget(facts, failed) if failed else (), strict=True):
                failure = _readable(StartFailure, [text or ""])
                if not failure or failure[0].at < seconds - _FORGET_SECONDS:
                    self._connection.client.hdel(facts, name)

        self._connection.call(write)


def _readable(model: type[_Model], lines: Iterable[str]) -> list[_Model]:
    """Return what can be read; a line that cannot concerns its own process only."""
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):  # includes pydantic's
            found.append(model.model_validate_json(line))
    return found


def _failure_field(worker: str) -> str:
    return f"{_FAILURE}{worker.rpartition('@')[2]}"


def _is_failure(field: str) -> bool:
    return field.startswith(_FAILURE)
