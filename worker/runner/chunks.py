"""The Celery edge: one chunk message in, one chunk result out. Everything else lies behind it.

    ledger.start -> pipeline.run (each outcome -> ledger.record) -> ledger.release -> result for the backend

A verdict other than `run` raises `Ignore`: a returned value would store SUCCESS under the chunk's fixed id, and
Celery would then drop a later copy of it unrun.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery.exceptions import Ignore, Reject

from worker.contract.errors import ServiceError
from worker.contract.ledger.jobs import Ledger, Start, Verdict
from worker.contract.log_fields import event
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind
from worker.contract.tracing import OFF, Tracing
from worker.runner.parent_channel import SharedState
from worker.runner.pipeline import Pipeline
from worker.runner.work_items import chunk_id, metadata, works
from worker.telemetry import metrics
from worker.telemetry.timing import Stage, timed

log = logging.getLogger(__name__)

RETRY_PAUSE_SECONDS = 5.0
"""Between a service that is down and the next try at the chunk: a queue must not spin on it."""


_NO_WITNESS = "nobody saw why; the node may have lost power or been taken away"


@dataclass(frozen=True)
class Identity:
    """Who runs chunks here."""

    worker: str
    """Name of the process, unique in the fleet."""

    model: str
    """What it runs, for people, with a digest."""

    cores: int


class ChunkRunner:
    """Runs chunk messages. One per worker process, made after the fork."""

    def __init__(
        self,
        ledger: Ledger,
        pipeline: Pipeline,
        identity: Identity,
        shared: SharedState,
        *,
        report: Callable[[float], None] = lambda seconds: None,
        nearly_done: Callable[[], None] = lambda: None,
        pause: Callable[[float], None] = time.sleep,
        tracing: Tracing = OFF,
    ) -> None:
        """Nothing happens yet.

        Args:
            ledger: of all jobs.
            pipeline: of this process.
            identity: of this process.
            shared: tells that it was asked to end: images not yet started are handed back.
            report: told the seconds per image of each chunk.
            nearly_done: told that the last images of a chunk begin.
            pause: waits.
            tracing: told of every chunk and image.
        """
        self._ledger, self._pipeline, self._identity = ledger, pipeline, identity
        self._shared, self._report, self._pause = shared, report, pause
        self._nearly_done, self._tracing = nearly_done, tracing

    def run(self, payload: Any) -> dict[str, Any]:
        """One chunk.

        Returns:
            `job`, `chunk`, `start`, `seconds`; `outcomes`, one word per image in the order of the message; and
            `failures` with key, code and message of those that did not end well in this delivery.

        Raises:
            Ignore: nothing to do (done, cancelled, paused, unknown job); the message is dropped.
            Reject: a service is down or the worker is stopping; the message goes back to the queue.
            BadMessage: not a message for this version.
        """
        message = ChunkMessage.read(payload)
        self._shared.beat()
        try:
            with self._tracing.span("chunk", parent=message.traceparent, job=message.job, chunk=message.chunk):
                return self._run(message)
        except ServiceError as error:
            log.warning(error, extra=event("chunk_returned", job=message.job, chunk=message.chunk, code=error.code))
            if not self._shared.stopping():
                self._pause(RETRY_PAUSE_SECONDS)
            raise Reject(str(error), requeue=True) from error

    def _run(self, message: ChunkMessage) -> dict[str, Any]:
        began = time.monotonic()
        start = self._ledger.start(message, self._identity.worker)
        metrics.CHUNKS.labels(start.verdict.value).inc()
        if start.verdict is not Verdict.RUN or start.options is None:
            self._pipeline.drop_ahead()
            log.info(
                "nothing to do",
                extra=event("chunk_skipped", job=message.job, chunk=message.chunk, verdict=start.verdict.value),
            )
            raise Ignore(start.verdict.value)
        delivery = _Delivery(message, start, start.options, self._bury(message, start))
        blameless = False
        try:
            delivery.work_through(
                self._ledger,
                self._pipeline,
                self._shared,
                self._identity.worker,
                nearly_done=self._nearly_done,
                tracing=self._tracing,
            )
            blameless = True
        except ServiceError:
            blameless = True
            raise
        finally:
            seconds = time.monotonic() - began
            again = self._release(message, seconds, blameless=blameless)
        if delivery.complete:
            self._report(seconds / max(1, len(delivery.found)))
            return _result(message, start, delivery.found, seconds)
        log.info(
            "stopped before its end",
            extra=event("chunk_returned", job=message.job, chunk=message.chunk, images=delivery.left),
        )
        if again:
            raise Reject("the worker is stopping", requeue=True)
        raise Ignore("the job was paused or stopped")

    def _release(self, message: ChunkMessage, seconds: float, *, blameless: bool) -> bool:
        who = self._identity
        core_seconds = seconds * who.cores
        metrics.CORE_SECONDS.inc(core_seconds)
        return self._ledger.release(
            message, who.worker, model=who.model, core_seconds=core_seconds, blameless=blameless
        )

    def _bury(self, message: ChunkMessage, start: Start) -> list[Outcome]:
        """Images that took their worker along too often are dead."""
        dead = [
            Outcome(
                index=index,
                key=message.keys[index - message.start],
                kind=OutcomeKind.DEAD,
                code="worker_lost",
                message=f"its worker died {start.policy.max_attempts} times over it: {start.why or _NO_WITNESS}",
            )
            for index in start.bury
        ]
        if dead:
            self._ledger.record(message, dead, self._identity.worker)
            for outcome in dead:
                log.error(
                    outcome.message,
                    extra=event(
                        "image_dead", job=message.job, chunk=message.chunk, image=outcome.index, key=outcome.key
                    ),
                )
        return dead


class _Delivery:
    """One delivery of a chunk: the images that have no outcome yet, and what becomes of them."""

    def __init__(self, message: ChunkMessage, start: Start, options: JobOptions, buried: list[Outcome]) -> None:
        self._message, self._start, self._options = message, start, options
        self.found = buried
        known = {outcome.index for outcome in buried}
        self._works = works(
            message,
            options,
            [
                position
                for position, outcome in enumerate(start.outcomes)
                if outcome is None and message.start + position not in known
            ],
        )
        self._wanted = True

    @property
    def left(self) -> int:
        """Images still without an outcome."""
        return len(self._works) + len(self._start.bury) - len(self.found)

    @property
    def complete(self) -> bool:
        """Every image has an outcome."""
        return self.left == 0

    def work_through(
        self,
        ledger: Ledger,
        pipeline: Pipeline,
        shared: SharedState,
        worker: str,
        *,
        nearly_done: Callable[[], None],
        tracing: Tracing,
    ) -> None:
        """Run the images, all at once or, for a chunk that kills, one by one."""

        def record(outcome: Outcome) -> None:
            with timed(Stage.RECORD, metrics.stage):
                self._wanted = ledger.record(self._message, [outcome], worker).go_on and self._wanted
            metrics.outcome(outcome)
            tracing.image(outcome)
            shared.beat()
            self.found.append(outcome)
            self._log(outcome)

        def stop() -> bool:
            return shared.stopping() or not self._wanted

        careful = self._start.careful
        batches = [[work] for work in self._works] if careful else [self._works]
        for batch in batches:
            if stop():
                return
            if careful and not ledger.begin(self._message, worker, batch[0].index):
                return
            pipeline.run(
                batch,
                record=record,
                stop=stop,
                metadata=metadata(self._message, self._options),
                skip_existing=self._start.policy.skip_existing,
                chunk=chunk_id(self._message),
                # Beside images that are run one by one nothing else may run, or it could be blamed.
                nearly_done=_nothing if careful else nearly_done,
            )

    def _log(self, outcome: Outcome) -> None:
        if outcome.kind in (OutcomeKind.OK, OutcomeKind.SKIPPED):
            return
        log.warning(
            outcome.message,
            extra=event(
                "image_failed",
                job=self._message.job,
                chunk=self._message.chunk,
                image=outcome.index,
                code=outcome.code,
                key=outcome.key,
            ),
        )


def _result(message: ChunkMessage, start: Start, found: list[Outcome], seconds: float) -> dict[str, Any]:
    kinds = {message.start + position: kind for position, kind in enumerate(start.outcomes) if kind is not None}
    kinds |= {outcome.index: outcome.kind for outcome in found}
    failures = [o for o in found if o.kind not in (OutcomeKind.OK, OutcomeKind.SKIPPED)]
    return {
        "job": message.job,
        "chunk": message.chunk,
        "start": message.start,
        "seconds": round(seconds, 3),
        "outcomes": [kinds[message.start + position].value for position in range(len(message.keys))],
        "failures": [{"key": o.key, "code": o.code, "message": o.message} for o in failures],
    }


def _nothing() -> None:
    pass
