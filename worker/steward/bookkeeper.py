"""Move outcomes from Redis to S3 and end jobs. One process of the fleet does it at a time.

Redis keeps four bits per image. The other fields of an outcome pass through a stream per job, which the bookkeeper
empties into parts of the job's folder in S3. Once every image has an outcome, it writes the job's lists and ends the
job.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from worker.contract.errors import ContractError, ServiceError, StoreUnavailable
from worker.contract.job import JobStatus, JobView, UnreadableJob, shortened
from worker.contract.ledger.backlog import Backlog, PendingOutcome
from worker.contract.ledger.jobs import Ledger
from worker.contract.ledger.records import JobRecord
from worker.contract.log_fields import event
from worker.contract.messages import Outcome
from worker.contract.settings import JobSettings
from worker.contract.storage import outcome_log
from worker.contract.storage.s3 import ObjectStore
from worker.steward.isolation import Isolation, passes
from worker.steward.job_lists import write_lists
from worker.steward.round_memory import RoundMemory
from worker.steward.tenants import Turns
from worker.telemetry import metrics

log = logging.getLogger(__name__)

COLLECT_SECONDS = 30.0
"""Longest time that an outcome waits in Redis."""

TICK_SECONDS = 3.0
"""Time after which a call begins no further job: of a thousand jobs that end together, those of other tenants must not
wait for all."""

LISTING_SILENT_SECONDS = 600.0
"""Silence of the producer after which a job that is being listed is abandoned, because it blocks the jobs that write to
the same destination. Long, because the producer gives no sign of life during one large upload."""

LISTED_SECONDS = 20.0
"""Time between two looks at whether the listing of a job is complete in S3."""

SOON_SECONDS = 8.0
SOON_IMAGES = 8
"""A job with more left than this, in images and in seconds at its current rate, does not end soon."""

READMIT_SECONDS = 60.0
"""Time between two looks at the jobs that could not be read: a newer steward may read them, or they were mended."""

STUCK_SECONDS = 120.0
"""Time after which a running job with images left, of which no chunk is published or waits to be, is cancelled."""

_DAY = 86_400
_FOREVER = 1e9


@dataclass
class _Known:
    """What the bookkeeper remembers of one job; times as of `time.monotonic`."""

    collected: float
    """Last collection of outcomes, at first the first look at the job."""

    listed: float
    """Last look at whether its listing is complete, at first the first look at the job."""

    stuck: float | None = None
    """First of the looks in a row that found images left, but no chunk."""

    seen: tuple[float, int] | None = None
    """Time and number of outcomes at the last look."""


class Bookkeeper:
    """Looks after all jobs: call `tick` at intervals."""

    def __init__(self, store: ObjectStore, ledger: Ledger, jobs: JobSettings, silence_seconds: float) -> None:
        """Do nothing yet; a worker of a stopping job counts as gone after `silence_seconds`."""
        self._store, self._ledger, self._jobs = store, ledger, jobs
        self._backlog = Backlog(ledger.connection)
        self._silence = silence_seconds
        self._isolation = Isolation("books")
        self._turns = Turns(jobs.tenants)
        self._readmitted = float("-inf")
        self._known = RoundMemory[_Known]()
        self._away: set[str] = set()
        """Buckets for which S3 was unavailable at the last call."""

    def tick(self) -> bool:
        """Collect the outcomes that are due, and end the jobs that are complete.

        Returns:
            Whether there are jobs and all of them can wait for a late next call.

        Raises:
            ServiceError: S3 or Redis failed; the next call does the rest.
        """
        active, unreadable = self._backlog.tidy()
        for job in unreadable:
            _report_unreadable(job)
        self._readmit()
        whole, ends_round = self._backlog.whole, self._backlog.ends_round
        now = time.monotonic()
        known = {name: self._known.get(name) or _Known(now, now) for name in (job.view.job for job in active)}
        self._known.keep(known, ends_round=ends_round)
        away, self._away = self._away, set()
        # Small jobs end quickly: first. A bucket that was away may cost all tries of S3: last.
        in_order = self._turns.order(active, lambda job: job.view.total or 0)
        in_order.sort(key=lambda job: job.view.options.dest.bucket in away)
        reached: set[str] = set()
        until = time.monotonic() + TICK_SECONDS

        def advance(job: JobRecord) -> None:
            if not reached or time.monotonic() < until:  # otherwise the jobs that are complete by now would wait
                reached.add(job.view.job)
                self._try(job, known[job.view.job])

        self._isolation.run_all(in_order, advance, lambda job: job.view.job)
        self._turns.note(active, reached, ends_round=ends_round)
        waits = [_can_wait(job, known[job.view.job]) for job in active]
        return bool(waits) and whole and self._turns.complete and all(waits)

    def _readmit(self) -> None:
        """Look again, now and then, at the jobs that could not be read, and at the names of those that are gone."""
        if time.monotonic() - self._readmitted >= READMIT_SECONDS:
            self._readmitted = time.monotonic()
            self._backlog.readmit()
            self._backlog.prune()

    def _try(self, job: JobRecord, known: _Known) -> None:
        """Advance a job, unless its bucket was found to be away in this call: its jobs would fail one after another."""
        if job.view.options.dest.bucket in self._away:
            return
        try:
            self._advance(job, known)
        except StoreUnavailable as error:
            if not error.of_object:
                self._away.add(error.bucket)
            raise

    def _advance(self, job: JobRecord, known: _Known) -> None:
        view, now = job.view, time.monotonic()
        if view.status is JobStatus.LISTING and not self._seal_if_listed(view, known):
            why = "its producer went away while listing"
            if self._ledger.abandon_silent(view.job, LISTING_SILENT_SECONDS, why):
                log.warning("its producer is gone", extra=event("listing_abandoned", job=view.job))
        if view.status is JobStatus.STOPPING:
            # A silent worker that still holds a chunk is not gone: it will write its slow image.
            held = self._backlog.held(view.job)
            self._backlog.settle(view.job, _FOREVER if held else self._silence)
        due = job.pending_outcomes >= outcome_log.PART_OUTCOMES or now - known.collected >= COLLECT_SECONDS
        if job.pending_outcomes and due and view.status is not JobStatus.CLOSING:
            self._collect_or_cancel(job)
            known.collected = now
        if view.status is JobStatus.RUNNING:
            self._cancel_if_stuck(job, known)
        if view.status is JobStatus.CLOSING:
            self._end(job)
        elif view.ended:
            self._backlog.deactivate(view.job)

    def _seal_if_listed(self, view: JobView, known: _Known) -> bool:
        """Let a job run whose producer has completed the listing, although Redis does not know that.

        A failover can undo the end of the listing after the producer was told, and a producer can die just before it.
        `job.json`, which is written after the manifest, has the totals.

        Returns:
            Whether the job runs.
        """
        now = time.monotonic()
        if now - known.listed < LISTED_SECONDS:
            return False
        known.listed = now
        try:
            found = outcome_log.read_json(self._store, view.options.dest, view.job, outcome_log.REQUEST) or {}
            sizes = [int(found[name]) for name in ("total", "chunk_images", "bytes")]
        except (ContractError, KeyError, TypeError, ValueError):  # not written yet, or not by us
            return False
        total, chunk_images, size = sizes
        if min(sizes) < 0 or not chunk_images:
            return False
        if not self._ledger.seal(view.job, total=total, chunk_images=chunk_images, size=size):
            return False
        log.warning("its listing was complete", extra=event("listing_completed", job=view.job))
        return True

    def _cancel_if_stuck(self, job: JobRecord, known: _Known) -> None:
        """Cancel a job whose keys were changed so that it would never end: images are left, but no chunk of them."""
        name, now = job.view.job, time.monotonic()
        if job.waiting or job.outstanding:
            known.stuck = None
        elif known.stuck is None:
            known.stuck = now
        elif now - known.stuck >= STUCK_SECONDS:
            left = (job.view.total or 0) - job.view.done
            reason = f"its keys in Redis were changed: {left} images are left, and no chunk of them"
            log.error(reason, extra=event("job_stuck", job=name))
            self._ledger.cancel(name, reason)

    def _collect_or_cancel(self, job: JobRecord) -> None:
        """Collect the outcomes of a job; cancel it if that will never be possible, or it would wait for ever."""
        try:
            self._collect(job)
        except ServiceError as error:
            if passes(error):
                raise
            if job.view.status in (JobStatus.RUNNING, JobStatus.PAUSED):  # a job that stops is on its way to `_end`
                log.error(error, extra=event("job_lists_incomplete", job=job.view.job))
                self._ledger.cancel(job.view.job, f"its outcomes cannot be written: {error}")

    def _collect(self, job: JobRecord) -> bool:
        """Move the outcomes of a job to S3.

        Returns:
            False if another server became the primary meanwhile: it still has outcomes that were written, and may lack
            others.
        """
        view, dest = job.view, job.view.options.dest
        left = job.pending_outcomes  # of a job that gets more all the time, the next call does the rest
        while left > 0 and (entries := self._backlog.pending_outcomes(view.job, outcome_log.PART_OUTCOMES)):
            good = [entry for entry in entries if _is_outcome(entry, view.total or 0)]
            if len(good) < len(entries):
                invalid = len(entries) - len(good)
                log.error("dropped", extra=event("outcomes_invalid", job=view.job, entries=invalid))
            if good:
                lines = [entry.dated for entry in good]
                first = good[0].id
                outcome_log.write_part(self._store, dest, view.job, epoch=view.epoch, first_id=first, lines=lines)
            if not self._backlog.delete_pending(view.job, entries):
                return False
            left -= len(entries)
        return True

    def _end(self, job: JobRecord) -> None:
        name, reason = job.view.job, ""
        try:
            if not self._collect(job):
                return
            view = self._ledger.view(name)
            if view.status is not JobStatus.CLOSING:  # a new primary that lacks the last outcomes
                return
            write_lists(self._store, self._ledger, view, self._jobs.price_per_core_hour, self._jobs.currency)
        except Exception as error:
            if passes(error):
                raise
            # The job's objects were removed or changed, or its destination refuses us. The job must still end: other
            # jobs wait for it.
            log.error(error, extra=event("job_lists_incomplete", job=name))
            view, reason = self._ledger.view(name), shortened(f"its lists are incomplete: {error}")
        days = self._jobs.keep_days
        if self._backlog.close(name, view.epoch, days * _DAY, reason, on_unconfirmed=lambda: _warn_unconfirmed(name)):
            log.info(
                "all lists are in S3",
                extra=event("job_ended", job=name, status=view.ending, ok=view.ok, failed=view.failed),
            )


def _can_wait(job: JobRecord, known: _Known) -> bool:
    """Return whether a job does not end soon and its outcomes do not fill a part soon; note this look at it.

    Without an earlier look its rate is unknown.
    """
    (at, done), before = (time.monotonic(), job.view.done), known.seen
    known.seen = at, done
    if before is None or job.view.status is not JobStatus.RUNNING:
        return False
    soon = max(SOON_IMAGES, SOON_SECONDS * (done - before[1]) / max(1e-3, at - before[0]))
    return (job.view.total or 0) - done > soon and job.pending_outcomes + soon < outcome_log.PART_OUTCOMES


def _warn_unconfirmed(job: str) -> None:
    """Say that a failover now may undo the end of a job, which then ends once more, with the same lists."""
    log.warning("too few replicas confirmed its end in time", extra=event("job_end_unconfirmed", job=job))
    metrics.ENDS_UNCONFIRMED.inc()


def _is_outcome(entry: PendingOutcome, total: int) -> bool:
    found = Outcome.read_line(entry.line)
    return found is not None and found.index < total


def _report_unreadable(job: UnreadableJob) -> None:
    log.error(
        "%s; `producer forget %s` removes it", job.reason, job.job, extra=event("job_record_invalid", job=job.job)
    )
