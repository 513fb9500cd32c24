"""The Celery edge: one chunk message in, one chunk result out. Everything else lies behind it.

    ledger.start -> pipeline.run (each outcome -> ledger.record) -> result for the backend

A verdict other than `run` raises `Ignore`: a returned value would store SUCCESS under the chunk's fixed id, and
Celery would then drop a later copy of it unrun.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import Ignore, Reject

from worker.contract.errors import ServiceError
from worker.contract.ledger import Ledger, Start, Verdict
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind
from worker.contract.objects import S3Url
from worker.pipeline import Pipeline, Work

log = logging.getLogger(__name__)

RETRY_PAUSE_SECONDS = 5.0
"""Between a service that is down and the next try at the chunk: a queue must not spin on it."""


class ChunkRunner:
    """Runs chunk messages. One per worker process, made after the fork."""

    def __init__(
        self,
        ledger: Ledger,
        pipeline: Pipeline,
        *,
        stopping: Callable[[], bool],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`stopping` tells that the process was asked to end: images not yet started are handed back."""
        self._ledger, self._pipeline = ledger, pipeline
        self._stopping, self._pause = stopping, pause

    def run(self, payload: Any) -> dict[str, Any]:
        """One chunk.

        Returns:
            `job`, `chunk`, `start`, `seconds`; `outcomes`, one word per image in the order of the message; and
            `failures` with key, code and message of those that did not end well in this delivery.

        Raises:
            Ignore: nothing to do (done, cancelled, unknown job); the message is dropped.
            Reject: a service is down or the worker is stopping; the message goes back to the queue.
            BadMessage: not a message for this version.
        """
        message = ChunkMessage.read(payload)
        try:
            return self._run(message)
        except ServiceError as error:
            log.warning("job=%s chunk=%d event=handed_back code=%s %s", message.job, message.chunk, error.code, error)
            if not self._stopping():
                self._pause(RETRY_PAUSE_SECONDS)
            raise Reject(str(error), requeue=True) from error

    def _run(self, message: ChunkMessage) -> dict[str, Any]:
        began = time.monotonic()
        start = self._ledger.start(message)
        if start.verdict is Verdict.DEAD:
            return self._bury(message, start)
        options = start.options
        if start.verdict is not Verdict.RUN or options is None:
            log.info("job=%s chunk=%d event=dropped verdict=%s", message.job, message.chunk, start.verdict)
            raise Ignore(start.verdict.value)
        works = [
            _work(message, options, position) for position, outcome in enumerate(start.outcomes) if outcome is None
        ]
        found = self._work_through(message, options, works)
        return _result(message, start, found, time.monotonic() - began)

    def _work_through(self, message: ChunkMessage, options: JobOptions, works: list[Work]) -> list[Outcome]:
        try:
            found = self._pipeline.run(
                works,
                record=lambda outcome: self._record(message, outcome),
                stop=self._stopping,
                metadata={"maskmill-options": options.digest()},
            )
        except ServiceError:
            self._ledger.hand_back(message)
            raise
        if len(found) < len(works):
            self._ledger.hand_back(message)
            log.info("job=%s chunk=%d event=handed_back images=%d", message.job, message.chunk, len(works) - len(found))
            raise Reject("the worker is stopping", requeue=True)
        return found

    def _record(self, message: ChunkMessage, outcome: Outcome) -> None:
        self._ledger.record(message, [outcome])
        if outcome.kind is not OutcomeKind.OK:
            log.warning(
                "job=%s chunk=%d event=image_failed code=%s key=%r %s",
                message.job,
                message.chunk,
                outcome.code,
                outcome.key,
                outcome.message,
            )

    def _bury(self, message: ChunkMessage, start: Start) -> dict[str, Any]:
        """What is left of a chunk that keeps killing its worker is dead."""
        dead = [
            Outcome(
                index=message.start + position,
                key=message.keys[position],
                kind=OutcomeKind.DEAD,
                code="worker_lost",
                message="the worker died each time it ran this image's chunk",
            )
            for position, outcome in enumerate(start.outcomes)
            if outcome is None
        ]
        self._ledger.record(message, dead)
        log.error("job=%s chunk=%d event=buried images=%d", message.job, message.chunk, len(dead))
        return _result(message, start, dead, 0.0)


def _work(message: ChunkMessage, options: JobOptions, position: int) -> Work:
    key = message.keys[position]
    dest = S3Url.folder(options.dest)
    keys = {kind: options.output_key(key, kind) for kind in options.outputs}
    return Work(
        index=message.start + position,
        key=key,
        source=S3Url.folder(options.source) / key,
        outputs={kind: dest / output for kind, output in keys.items()},
        output_keys=tuple(keys.values()),
        options=options,
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
