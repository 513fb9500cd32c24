"""The task that Celery calls: one chunk message in, one chunk result out.

    ledger.start -> lease -> pipeline.run (each outcome -> lease.record) -> lease.release -> result for the backend

A verdict other than `run` raises `Ignore`: a returned value would be stored as SUCCESS under the chunk's fixed task id,
and Celery would then drop a later copy of the message without running it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celery.exceptions import Ignore, Reject

from worker.contract.errors import (
    CALLER_ERRORS,
    BadMessage,
    JobUnreadable,
    MaskmillError,
    ServiceError,
    StoreUnavailable,
)
from worker.contract.ledger.chunks import ChunkLease, ChunkLedger, Verdict
from worker.contract.log_fields import event
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore
from worker.contract.tracing import OFF, Tracing
from worker.runner.outcome_buffer import RECORD_SECONDS, OutcomeBuffer
from worker.runner.parent_channel import ParentChannel
from worker.runner.pipeline import Pipeline, StoreVerdict, WorkItem
from worker.runner.work_items import chunk_id, metadata, work_items
from worker.telemetry import metrics
from worker.telemetry.timing import Stage, timed

log = logging.getLogger(__name__)

RETRY_PAUSE_SECONDS = 5.0
"""Pause before a chunk goes back because Redis is down, or S3 for the second time in a row: a process that fails fast
must not take one message after another."""

REFUSED_PAUSE_SECONDS = 1.0
"""Pause before a chunk goes back that arrived although S3 refuses this process."""

STORE_TRIES = 3
"""Tries of an image for which S3 fails while it serves other objects; a try has several requests (`s3.attempts`)."""

STORE_RETRY_SECONDS = 20.0
"""Time until the rest of a chunk runs again because S3 failed for some of its images. No process waits meanwhile."""

PROBE = "probe"
"""Empty object in the job's folder, written to find out whether S3 stores anything."""

_NO_REASON = "no reason was recorded; the node may have lost power or been removed"


@dataclass(frozen=True)
class Identity:
    """The worker process that runs the chunks."""

    worker: str
    """Name of the process, unique in the fleet."""

    model: str
    """Readable name of the model, with the start of its digest."""

    cores: int


class ChunkRunner:
    """Runs chunk messages. One per worker process, created after the fork."""

    def __init__(
        self,
        ledger: ChunkLedger,
        pipeline: Pipeline,
        identity: Identity,
        channel: ParentChannel,
        *,
        report: Callable[[float], None] = lambda seconds: None,
        nearly_done: Callable[[], None] = lambda: None,
        pause: Callable[[float], None] = time.sleep,
        tracing: Tracing = OFF,
        refused: Callable[[MaskmillError], None] = lambda error: None,
    ) -> None:
        """Run nothing yet.

        Args:
            ledger: of the chunks of all jobs.
            pipeline: of this process.
            identity: of this process.
            channel: to the parent; once it stops, images that have not started are handed back.
            report: receives the seconds per image of each completed chunk.
            nearly_done: called when the last images of a chunk start.
            pause: sleeps.
            tracing: records every chunk and image.
            refused: called when S3 refuses the credentials or the clock of this process.
        """
        self._ledger, self._pipeline, self._identity = ledger, pipeline, identity
        self._channel, self._report, self._pause = channel, report, pause
        self._nearly_done, self._tracing, self._refused = nearly_done, tracing, refused
        self._store_was_away = False

    def run(self, payload: Any) -> dict[str, Any]:
        """Run one chunk.

        Returns:
            `job`, `chunk`, `start`, `seconds`; `outcomes`, one word per image in the order of the message; and
            `failures` with key, code and message of the images that failed in this delivery.

        Raises:
            Ignore: nothing to do (done, cancelled, paused, unknown or unreadable job, or one with options that this
                worker does not know), or S3 is unavailable for the job, so that the feeder publishes the chunk later,
                or the payload is not a chunk message of a version that this worker reads; the message is dropped.
            Reject: Redis is down or the worker stops; the message goes back to the queue.
        """
        try:
            message = ChunkMessage.read(payload)
        except BadMessage as error:
            log.error("dropped", extra=event("message_refused", reason=str(error)))
            metrics.refused("not a chunk message that this worker reads")
            raise Ignore from error
        self._channel.record_progress()
        if self._channel.refused():  # it was on its way when S3 refused this process: others may run it
            self._pause(REFUSED_PAUSE_SECONDS)
            raise Reject("S3 refuses this worker", requeue=True)
        try:
            with self._tracing.span("chunk", parent=message.traceparent, job=message.job, chunk=message.chunk):
                return self._run(message)
        except (JobUnreadable, BadMessage) as error:  # the steward sees to the job; its messages must not circulate
            log.error(error, extra=event("job_record_invalid", job=message.job, chunk=message.chunk))
            raise Ignore(error.code) from error
        except ServiceError as error:
            log.warning(error, extra=event("chunk_returned", job=message.job, chunk=message.chunk, code=error.code))
            if isinstance(error, CALLER_ERRORS):
                self._refused(error)
            elif not self._channel.stopping():
                self._pause(RETRY_PAUSE_SECONDS)
            raise Reject(str(error), requeue=True) from error

    def _run(self, message: ChunkMessage) -> dict[str, Any]:
        began = time.monotonic()
        lease = self._ledger.start(message, self._identity.worker)
        metrics.CHUNKS.labels(lease.verdict.value).inc()
        if lease.verdict is not Verdict.RUN or lease.options is None:
            self._pipeline.drop_ahead()
            log.info(
                "nothing to do",
                extra=event("chunk_skipped", job=message.job, chunk=message.chunk, verdict=lease.verdict.value),
            )
            raise Ignore(lease.verdict.value)
        delivery = _Delivery(lease, lease.options, self._record_dead(lease), self._pipeline.store)
        blameless = is_away = False
        try:
            delivery.run(self._pipeline, self._channel, nearly_done=self._nearly_done, tracing=self._tracing)
            blameless = True
        except StoreUnavailable as error:
            blameless = is_away = True
            lease.store_failure(str(error), bucket=error.bucket, spent=delivery.seconds_without_outcome)
            log.warning(error, extra=event("chunk_returned", job=message.job, chunk=message.chunk, code=error.code))
        except ServiceError:
            blameless = True
            raise
        finally:
            seconds = time.monotonic() - began
            requeue = self._release(lease, seconds, blameless=blameless, deferred=delivery.deferred, give_back=is_away)
        was_away, self._store_was_away = self._store_was_away, is_away
        if is_away:  # the process takes the next chunk at once, unless S3 may be away for this node only
            if was_away and not self._channel.stopping():
                self._pause(RETRY_PAUSE_SECONDS)
            raise Ignore("S3 is unavailable for the job")
        if delivery.complete:
            self._report(seconds / max(1, len(delivery.found)))
            return _result(lease, delivery.found, seconds)
        log.info(
            "stopped before its end",
            extra=event("chunk_returned", job=message.job, chunk=message.chunk, images=delivery.left),
        )
        if requeue:
            raise Reject("the worker is stopping", requeue=True)
        raise Ignore(
            "S3 failed for some images, which run later" if delivery.deferred else "the job was paused or stopped"
        )

    def _release(self, lease: ChunkLease, seconds: float, *, blameless: bool, deferred: bool, give_back: bool) -> bool:
        core_seconds = seconds * self._identity.cores
        metrics.CORE_SECONDS.inc(core_seconds)
        return lease.release(
            model=self._identity.model,
            core_seconds=core_seconds,
            blameless=blameless,
            retry_after=STORE_RETRY_SECONDS if deferred and not self._channel.stopping() else 0.0,
            give_back=give_back,
        )

    def _record_dead(self, lease: ChunkLease) -> list[Outcome]:
        """Record images that killed too many workers as dead, and return their outcomes."""
        message, attempts, reason = lease.message, lease.policy.max_attempts, lease.death_reason
        dead = [
            Outcome(
                index=index,
                key=message.keys[index - message.start],
                kind=OutcomeKind.DEAD,
                code="worker_lost",
                message=f"its worker died {attempts} times while running it: {reason or _NO_REASON}",
            )
            for index in lease.dead
        ]
        if dead:
            lease.record(dead)
            for outcome in dead:
                log.error(
                    outcome.message,
                    extra=event(
                        "image_dead", job=message.job, chunk=message.chunk, image=outcome.index, key=outcome.key
                    ),
                )
        return dead


class _Delivery:
    """One delivery of a chunk: the images without an outcome, and the outcomes they get."""

    def __init__(self, lease: ChunkLease, options: JobOptions, dead: list[Outcome], store: ObjectStore) -> None:
        self._lease, self._message, self._options, self._store = lease, lease.message, options, store
        self.found = dead
        self.deferred = False
        """S3 failed for some images, which run again later."""
        self._work_items = work_items(
            lease.message,
            options,
            [
                position
                for position, outcome in enumerate(lease.outcomes)
                if outcome is None and lease.message.start + position not in lease.dead
            ],
        )
        self._proceed = True
        self._heard = time.monotonic()

    @property
    def seconds_without_outcome(self) -> float:
        """Seconds since the last outcome, or since the beginning."""
        return time.monotonic() - self._heard

    @property
    def left(self) -> int:
        """Number of images that still have no outcome."""
        return len(self._work_items) + len(self._lease.dead) - len(self.found)

    @property
    def complete(self) -> bool:
        """Whether every image has an outcome."""
        return self.left == 0

    def run(
        self, pipeline: Pipeline, channel: ParentChannel, *, nearly_done: Callable[[], None], tracing: Tracing
    ) -> None:
        """Run the images: all at once, or one by one in a chunk that has killed workers."""

        def record(outcomes: Sequence[Outcome]) -> None:
            with timed(Stage.RECORD, metrics.stage):
                self._proceed = self._lease.record(outcomes).proceed and self._proceed
            for outcome in outcomes:
                metrics.outcome(outcome)
                tracing.image(outcome)
                self.found.append(outcome)
                self._log(outcome)
            channel.record_progress()
            self._heard = time.monotonic()

        def stop() -> bool:
            return channel.stopping() or not self._proceed

        one_by_one = self._lease.one_by_one
        # What a chunk has done before it kills its worker must be recorded: otherwise each kill would show as progress
        # of an image or two, and it would take many until its images run one by one.
        at_once = one_by_one or self._lease.started_before
        buffer = OutcomeBuffer(record, most=pipeline.in_flight, seconds=0.0 if at_once else RECORD_SECONDS)
        batches = [[work] for work in self._work_items] if one_by_one else [self._work_items]
        for batch in batches:
            if stop():
                return
            if one_by_one and not self._lease.begin(batch[0].index):
                return
            try:
                pipeline.run(
                    batch,
                    record=buffer.add,
                    poll=buffer.poll,
                    stop=stop,
                    metadata=metadata(self._message, self._options),
                    skip_existing=self._lease.policy.skip_existing,
                    # A killed worker may have written outputs whose outcomes it had not recorded yet, and a new
                    # primary may lack outcomes that were recorded.
                    skip_own=self._lease.started_before or self._lease.recheck,
                    chunk=chunk_id(self._message),
                    # Nothing may be in flight beside an image that runs alone: it could be blamed for a death.
                    nearly_done=_nothing if one_by_one else nearly_done,
                    on_store_failure=self._on_store_failure,
                )
            finally:
                buffer.flush()

    def _on_store_failure(self, work: WorkItem, error: StoreUnavailable) -> StoreVerdict:
        """Tell an object for which S3 fails from an S3 that is down, and count the tries of the former.

        A try counts only if S3 serves another object afterwards: no image fails because S3 was away.
        """
        if not error.of_object or not self._serves_others(work, error):
            return StoreVerdict.DOWN
        tries = self._lease.store_failure(str(error), index=work.index, tries=STORE_TRIES)
        log.warning(
            error,
            extra=event(
                "store_failure", job=self._message.job, chunk=self._message.chunk, image=work.index, tries=tries
            ),
        )
        if tries >= STORE_TRIES:
            return StoreVerdict.GIVEN_UP
        self.deferred = True
        return StoreVerdict.LATER

    def _serves_others(self, work: WorkItem, error: StoreUnavailable) -> bool:
        if error.writing:
            return self._store.writes(job_folder(self._options.dest, self._message.job) / PROBE)
        return self._store.reads_others(work.source)

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


def _result(lease: ChunkLease, found: list[Outcome], seconds: float) -> dict[str, Any]:
    message = lease.message
    kinds = {message.start + position: kind for position, kind in enumerate(lease.outcomes) if kind is not None}
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
