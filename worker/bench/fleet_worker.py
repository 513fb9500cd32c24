"""Simulate many worker processes in one: the real protocol to Redis, without images. Runs in a child process.

Chunks come through Celery's own consumer (BRPOP, unacked hash and index) and are acknowledged as in Celery. The ledger
records start, outcomes (several in one call, as in a model process) and release; Celery's result backend stores both
states, and its events are sent. Each worker sends heartbeats, renews leases and reports its speed. Only the time
between two outcomes is slept rather than computed.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from worker.bench.harness.requests import SimulationAnswer, SimulationRequest
from worker.consumer.lease import RENEWALS, renew
from worker.contract import redis_keys
from worker.contract.errors import SetupError
from worker.contract.input_size import InputSize
from worker.contract.ledger.chunks import ChunkLease, ChunkLedger, Verdict
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.fleet import HEARTBEAT_SECONDS, Fleet, WorkerFacts
from worker.contract.messages import ChunkMessage, MaskQuality, Outcome, OutcomeKind
from worker.contract.queue.celery_app import make_celery
from worker.contract.settings import RedisSettings, Settings
from worker.runner.outcome_buffer import OutcomeBuffer

_QUALITY = MaskQuality(coverage=0.3124, soft=0.0711, empty=False, full=False, touches_border=False)
_POLL_SECONDS = 0.002
_IDLE_SHARE = 0.05
"""Share of idle workers from which the simulation counts as busy."""
_START_SECONDS = 60.0
"""Time-out for the first messages to reach the workers."""


@dataclass
class _Worker:
    """One simulated worker process."""

    name: str
    lease: ChunkLease | None = None
    delivery: Any = None
    next_image: int = 0
    began: float = 0.0
    buffer: OutcomeBuffer | None = None


@dataclass
class _SimulatedWorkers:
    """All workers that this process simulates, on one Celery consumer."""

    settings: Settings
    workers: list[_Worker]
    seconds_per_image: float
    idle: list[_Worker] = field(default_factory=list)
    images: int = 0
    chunks: int = 0
    lag: float = 0.0
    """Largest delay of an action, in seconds."""
    calls: list[float] = field(default_factory=list)
    """Seconds of ledger calls."""

    def __post_init__(self) -> None:
        self.app = make_celery(self.settings, client_name="maskmill-bench-crowd")
        self.redis = RedisConnection(self.settings.redis, retries=2, client_name="maskmill-bench-crowd")
        self.ledger, self.fleet = ChunkLedger(self.redis), Fleet(self.redis)
        self.connection = self.app.connection_for_read()
        self.consumer = self.app.amqp.TaskConsumer(self.connection.default_channel)
        self.consumer.on_message = self._received
        self.events = self.app.events.Dispatcher(self.app.connection_for_write(), hostname=socket.gethostname())
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._count = itertools.count()

    def at(self, when: float, act: Callable[[], object]) -> None:
        """Schedule an action at a time of `time.monotonic`."""
        heapq.heappush(self._due, (when, next(self._count), act))

    def run(self, seconds: float) -> bool:
        """Work for `seconds`, counted from the moment when 95 % of the workers have a chunk.

        Returns:
            Whether that moment came within the time-out.
        """
        now = time.monotonic()
        for number, worker in enumerate(self.workers):
            self.fleet.register(self._facts(worker))
            self.at(now + HEARTBEAT_SECONDS * number / len(self.workers), lambda worker=worker: self._heartbeat(worker))  # type: ignore[misc]
            self.fleet.heartbeat(worker.name)
        self.idle = list(self.workers)
        self.at(now + self.settings.engine.lease_seconds / RENEWALS, self._renew)
        self.consumer.qos(prefetch_count=len(self.workers))
        self.consumer.consume()
        end, settled = now + _START_SECONDS, False
        while (now := time.monotonic()) < end:
            if not settled and len(self.idle) <= len(self.workers) * _IDLE_SHARE:
                settled, end, self.lag = True, now + seconds, 0.0
                self.calls.clear()
            while self._due and self._due[0][0] <= now:
                when, _, act = heapq.heappop(self._due)
                self.lag = max(self.lag, now - when)
                act()
                now = time.monotonic()
            wait = max(0.0, min(self._due[0][0] - time.monotonic(), end - time.monotonic())) if self._due else 0.1
            self._drain(min(wait, 0.1) if self.idle else 0.0)
            if not self.idle:
                time.sleep(min(wait, 0.1))
        return settled

    def close(self) -> None:
        """Close all connections; unacknowledged messages return to the queue."""
        self.consumer.cancel()
        self.connection.close()
        self.redis.close()

    def _drain(self, seconds: float) -> None:
        if not self.idle:
            return
        try:
            self.connection.drain_events(timeout=max(seconds, _POLL_SECONDS))
        except TimeoutError:
            return

    def _received(self, delivery: Any) -> None:
        worker = self.idle.pop()
        message = ChunkMessage.read(delivery.decode()[0][0])
        task = redis_keys.task_id(message.job, message.epoch, message.chunk)
        self.events.send("task-received", uuid=task, name=redis_keys.TASK_CHUNK)
        lease = self._timed(lambda: self.ledger.start(message, worker.name))
        if lease.verdict is not Verdict.RUN:
            delivery.ack()
            self.idle.append(worker)
            return
        self.events.send("task-started", uuid=task)
        self.app.backend.mark_as_started(task, pid=1, hostname=worker.name)
        worker.lease, worker.delivery, worker.next_image = lease, delivery, 0
        in_flight = 2 + self.settings.worker.images_ahead  # as in a model process of one stream
        worker.buffer = OutcomeBuffer(lambda outcomes: self._timed(lambda: lease.record(outcomes)), most=in_flight)
        worker.began = time.monotonic()
        self.at(worker.began + self.seconds_per_image, lambda: self._image(worker))

    def _image(self, worker: _Worker) -> None:
        lease, buffer = worker.lease, worker.buffer
        if lease is None or buffer is None:
            return
        message = lease.message
        key = message.keys[worker.next_image]
        found = Outcome(
            index=message.start + worker.next_image,
            key=key,
            kind=OutcomeKind.OK,
            outputs=(f"{key}.png",),
            seconds=self.seconds_per_image,
            quality=_QUALITY,
        )
        buffer.add(found)
        if (seconds := buffer.poll()) is not None:
            self.at(time.monotonic() + seconds, buffer.poll)
        self.images += 1
        worker.next_image += 1
        if worker.next_image < len(message.keys):
            # Scheduled from the start of the chunk, so that a slow call does not lower the rate of the worker.
            due = worker.began + self.seconds_per_image * (worker.next_image + 1)
            self.at(due, lambda: self._image(worker))
        else:
            self._finished(worker, lease)

    def _finished(self, worker: _Worker, lease: ChunkLease) -> None:
        message, took = lease.message, time.monotonic() - worker.began
        if worker.buffer is not None:
            worker.buffer.flush()
        self._timed(lambda: lease.release(model="simulated", core_seconds=took, blameless=True))
        self.fleet.register(self._facts(worker))
        task = redis_keys.task_id(message.job, message.epoch, message.chunk)
        result = {"job": message.job, "chunk": message.chunk, "outcomes": ["ok"] * len(message.keys), "failures": []}
        self.app.backend.store_result(task, result, "SUCCESS")
        worker.delivery.ack()
        self.events.send("task-succeeded", uuid=task, result="", runtime=took)
        worker.lease = None
        self.chunks += 1
        self.idle.append(worker)

    def _timed(self, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        answer = call()
        self.calls.append(time.perf_counter() - began)
        return answer

    def _heartbeat(self, worker: _Worker) -> None:
        self.fleet.heartbeat(worker.name)
        self.at(time.monotonic() + HEARTBEAT_SECONDS, lambda: self._heartbeat(worker))

    def _renew(self) -> None:
        renew(self.consumer.channel)
        self.at(time.monotonic() + self.settings.engine.lease_seconds / RENEWALS, self._renew)

    def _facts(self, worker: _Worker) -> WorkerFacts:
        return WorkerFacts(
            name=worker.name,
            streams=1,
            threads=1,
            model="simulated",
            size=InputSize.square(1),
            precision="none",
            seconds_per_image=self.seconds_per_image,
        )


def simulate(request: SimulationRequest) -> SimulationAnswer:
    """Simulate workers for `seconds`; each completes an image every `seconds_per_image`.

    Raises:
        SetupError: after 60 s fewer than 95 % of the workers had a chunk.
    """
    address = request["redis"]
    redis = RedisSettings(url=address["url"], password=SecretStr(address["password"]), prefix=address["prefix"])
    settings = Settings(redis=redis)  # an object: a dict would be merged with the environment's settings of Redis
    workers = [_Worker(name) for name in request["workers"]]
    simulated = _SimulatedWorkers(settings, workers, float(request["seconds_per_image"]))
    try:
        if not simulated.run(float(request["seconds"])):
            raise SetupError(f"after {_START_SECONDS:g} s not all simulated workers had a chunk; does the steward run?")
    finally:
        simulated.close()
    calls = sorted(simulated.calls) or [0.0]
    return {
        "images": simulated.images,
        "chunks": simulated.chunks,
        "lag_seconds": round(simulated.lag, 3),
        "calls_ms": [round(calls[int(part * (len(calls) - 1))] * 1000, 3) for part in (0.5, 0.99)],
    }
