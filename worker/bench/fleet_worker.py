"""Many worker processes simulated by one: the real protocol towards Redis, without images. Runs in a child process.

Chunks come through Celery's own consumer (BRPOP, unacked hash and index) and are acknowledged as Celery does it; the
ledger hears start, every outcome and release; Celery's result backend gets both states and its events are sent; each
worker beats, renews leases and tells its speed. Only the time between two outcomes is slept instead of computed.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from worker.consumer.lease import RENEWALS, renew
from worker.contract import redis_keys
from worker.contract.errors import SetupError
from worker.contract.input_size import InputSize
from worker.contract.ledger.fleet import BEAT_SECONDS, Fleet, WorkerFacts
from worker.contract.ledger.jobs import Ledger, Verdict
from worker.contract.messages import ChunkMessage, MaskQuality, Outcome, OutcomeKind
from worker.contract.queue.celery_app import make_celery
from worker.contract.settings import RedisSettings, Settings

_QUALITY = MaskQuality(coverage=0.3124, soft=0.0711, empty=False, full=False, touches_border=False)
_POLL_SECONDS = 0.002
_IDLE_AT_FIRST = 0.05
_MOST_SECONDS = 60.0
"""For a window of messages to reach everybody."""


@dataclass
class _Worker:
    """One simulated process."""

    name: str
    message: ChunkMessage | None = None
    delivery: Any = None
    next_image: int = 0
    began: float = 0.0


@dataclass
class _Crowd:
    """All simulated processes of this one, over one consumer."""

    settings: Settings
    workers: list[_Worker]
    seconds_per_image: float
    idle: list[_Worker] = field(default_factory=list)
    images: int = 0
    chunks: int = 0
    lag: float = 0.0
    calls: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.app = make_celery(self.settings, client_name="maskmill-bench-crowd")
        self.ledger = Ledger(self.settings.redis, client_name="maskmill-bench-crowd")
        self.fleet = Fleet(self.ledger.link)
        self.connection = self.app.connection_for_read()
        self.consumer = self.app.amqp.TaskConsumer(self.connection.default_channel)
        self.consumer.on_message = self._received
        self.events = self.app.events.Dispatcher(self.app.connection_for_write(), hostname=socket.gethostname())
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Do something at a time of `time.monotonic`."""
        heapq.heappush(self._due, (when, next(self._count), act))

    def run(self, seconds: float) -> bool:
        """Work for so long, counted from when (nearly) everybody has work; whether that came to be."""
        now = time.monotonic()
        for number, worker in enumerate(self.workers):
            self.fleet.enrol(self._facts(worker))
            self.at(now + BEAT_SECONDS * number / len(self.workers), lambda worker=worker: self._beat(worker))  # type: ignore[misc]
            self.fleet.beat(worker.name)
        self.idle = list(self.workers)
        self.at(now + self.settings.engine.lease_seconds / RENEWALS, self._renew)
        self.consumer.qos(prefetch_count=len(self.workers))
        self.consumer.consume()
        end, settled = now + _MOST_SECONDS, False
        while (now := time.monotonic()) < end:
            if not settled and len(self.idle) <= len(self.workers) * _IDLE_AT_FIRST:
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
        """Let go of everything; messages in hand go back to the queue."""
        self.consumer.cancel()
        self.connection.close()
        self.ledger.close()

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
        start = self._timed(lambda: self.ledger.start(message, worker.name))
        if start.verdict is not Verdict.RUN:
            delivery.ack()
            self.idle.append(worker)
            return
        self.events.send("task-started", uuid=task)
        self.app.backend.mark_as_started(task, pid=1, hostname=worker.name)
        worker.message, worker.delivery, worker.next_image = message, delivery, 0
        worker.began = time.monotonic()
        self.at(worker.began + self.seconds_per_image, lambda: self._image(worker))

    def _image(self, worker: _Worker) -> None:
        message = worker.message
        if message is None:
            return
        key = message.keys[worker.next_image]
        found = Outcome(
            index=message.start + worker.next_image,
            key=key,
            kind=OutcomeKind.OK,
            outputs=(f"{key}.png",),
            seconds=self.seconds_per_image,
            quality=_QUALITY,
        )
        self._timed(lambda: self.ledger.record(message, [found], worker.name))
        self.images += 1
        worker.next_image += 1
        if worker.next_image < len(message.keys):
            # In step with the clock: a call that took long does not slow the worker down.
            due = worker.began + self.seconds_per_image * (worker.next_image + 1)
            self.at(due, lambda: self._image(worker))
        else:
            self._finished(worker, message)

    def _finished(self, worker: _Worker, message: ChunkMessage) -> None:
        took = time.monotonic() - worker.began
        facts = {"model": "simulated", "core_seconds": took, "blameless": True}
        self._timed(lambda: self.ledger.release(message, worker.name, **facts))  # type: ignore[arg-type]
        self.fleet.enrol(self._facts(worker))
        task = redis_keys.task_id(message.job, message.epoch, message.chunk)
        result = {"job": message.job, "chunk": message.chunk, "outcomes": ["ok"] * len(message.keys), "failures": []}
        self.app.backend.store_result(task, result, "SUCCESS")
        worker.delivery.ack()
        self.events.send("task-succeeded", uuid=task, result="", runtime=took)
        worker.message = None
        self.chunks += 1
        self.idle.append(worker)

    def _timed(self, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        answer = call()
        self.calls.append(time.perf_counter() - began)
        return answer

    def _beat(self, worker: _Worker) -> None:
        self.fleet.beat(worker.name)
        self.at(time.monotonic() + BEAT_SECONDS, lambda: self._beat(worker))

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


def simulate(request: dict[str, Any]) -> dict[str, Any]:
    """Be `request["workers"]` (names) for `seconds`, each doing an image every `seconds_per_image`.

    Returns:
        `images`, `chunks`; `lag_seconds`, by which the latest action was late: much more than a call takes means that
        this process is the narrow place; `calls_ms`: median and 99th percentile of calls of the ledger.
    """
    # An object and not a dict: a dict would be merged with what the environment says of another Redis.
    settings = Settings(redis=RedisSettings(**request["redis"]))
    workers = [_Worker(name) for name in request["workers"]]
    crowd = _Crowd(settings, workers, float(request["seconds_per_image"]))
    try:
        if not crowd.run(float(request["seconds"])):
            raise SetupError(f"after {_MOST_SECONDS:g} s not every simulated worker had a message: is the steward up?")
    finally:
        crowd.close()
    calls = sorted(crowd.calls) or [0.0]
    return {
        "images": crowd.images,
        "chunks": crowd.chunks,
        "lag_seconds": round(crowd.lag, 3),
        "calls_ms": [round(calls[int(part * (len(calls) - 1))] * 1000, 3) for part in (0.5, 0.99)],
    }
