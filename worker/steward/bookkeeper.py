"""Brings outcomes from Redis to S3 and ends jobs. One process of the fleet does it at a time.

Redis holds four bits per image; what else there is to say about one passes through a stream of the job, which this
empties into parts of the job's folder. When every image has its outcome, the lists are written, and the job has ended.
"""

from __future__ import annotations

import logging
import time

from worker.contract.errors import ContractError, ImageError
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import ActiveJob, Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.settings import JobSettings
from worker.contract.storage import outcome_log
from worker.contract.storage.s3 import ObjectStore
from worker.steward.isolation import each
from worker.steward.job_lists import write_lists

log = logging.getLogger(__name__)

COLLECT_SECONDS = 30.0
"""An outcome waits in Redis for so long at most."""

LISTING_SILENT_SECONDS = 600.0
"""Without a sign of life, after which a job that is being listed is given up: it holds up those that write to the same
place. Long, since one large upload gives no sign."""

FAR_SECONDS = 8.0
FAR_IMAGES = 8
"""A job with more left to do than this, in images and in time at its rate, need not be looked at soon."""

_DAY = 86_400
_FOR_EVER = 1e9


class Bookkeeper:
    """One look at a time: `tick`."""

    def __init__(self, store: ObjectStore, ledger: Ledger, jobs: JobSettings, silence_seconds: float) -> None:
        """`silence_seconds`: after which a worker of a job that is told to stop counts as gone."""
        self._store, self._ledger, self._jobs = store, ledger, jobs
        self._backlog = Backlog(ledger.link)
        self._silence = silence_seconds
        self._collected: dict[str, float] = {}
        self._seen: dict[str, tuple[float, int]] = {}

    def tick(self) -> bool:
        """Collect what is due and end what is complete.

        Returns:
            Whether there are jobs and none of them needs to be looked at soon.

        Raises:
            ServiceError: S3 or Redis did not do their part; the next look does the rest.
        """
        active = self._backlog.active()
        names = {job.view.job for job in active}
        self._collected = {name: at for name, at in self._collected.items() if name in names}
        each(sorted(active, key=lambda job: job.view.total or 0), self._look)  # the end of a small one is soon done
        seen, self._seen = self._seen, {job.view.job: (time.monotonic(), job.view.done) for job in active}
        return bool(active) and all(self._far(job, seen.get(job.view.job)) for job in active)

    def _far(self, job: ActiveJob, before: tuple[float, int] | None) -> bool:
        """Whether a job runs on for some time, and its outcomes can wait as long; unknown at the first sight of it."""
        if before is None or job.view.status is not JobStatus.RUNNING:
            return False
        at, done = self._seen[job.view.job]
        soon = max(FAR_IMAGES, FAR_SECONDS * (done - before[1]) / max(1e-3, at - before[0]))
        return (job.view.total or 0) - done > soon and job.logged + soon < outcome_log.PART_OUTCOMES

    def _look(self, job: ActiveJob) -> None:
        view, now = job.view, time.monotonic()
        if view.status is JobStatus.LISTING:
            why = "its producer went away while listing"
            if self._ledger.abandon_silent(view.job, LISTING_SILENT_SECONDS, why):
                log.warning("its producer is gone", extra=event("listing_abandoned", job=view.job))
        if view.status is JobStatus.STOPPING:
            # Silent is not gone: while a worker holds a chunk, its slow image will still be written.
            held = self._backlog.held(view.job)
            self._backlog.settle(view.job, _FOR_EVER if held else self._silence)
        last = self._collected.setdefault(view.job, now)
        due = job.logged >= outcome_log.PART_OUTCOMES or now - last >= COLLECT_SECONDS
        if job.logged and due:
            self._collect(job)
            self._collected[view.job] = now
        if view.status is JobStatus.CLOSING:
            self._end(job)
        elif view.ended:
            self._backlog.drop(view.job)

    def _collect(self, job: ActiveJob) -> None:
        view, dest = job.view, job.view.options.dest
        while entries := self._backlog.log(view.job, outcome_log.PART_OUTCOMES):
            lines = [entry.dated for entry in entries]
            outcome_log.write_part(self._store, dest, view.job, epoch=view.epoch, first_id=entries[0].id, lines=lines)
            self._backlog.logged(view.job, entries)

    def _end(self, job: ActiveJob) -> None:
        name = job.view.job
        try:
            self._collect(job)
            view = self._ledger.view(name)
            write_lists(self._store, self._ledger, view, self._jobs.price_per_core_hour)
        except (ContractError, ImageError) as error:
            # Somebody removed or changed the job's objects. The outputs are there; the job must still end.
            log.error(error, extra=event("job_lists_incomplete", job=name))
            view = self._ledger.view(name)
        if self._backlog.close(name, view.epoch, self._jobs.keep_days * _DAY):
            log.info(
                "all lists are in S3",
                extra=event("job_ended", job=name, status=view.ending, ok=view.ok, failed=view.failed),
            )
