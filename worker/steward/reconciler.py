"""Finds chunks that went missing and publishes them again: what makes "nothing lost" true on Celery's Redis transport.

A message can vanish between the moment Redis hands it out and the moment kombu writes down that it did. Every
published chunk stands in the ledger with the time of its last sign of life; one that is silent, waits in no queue and
is held by no worker is gone.
"""

from __future__ import annotations

import logging

from worker.contract import redis_keys
from worker.contract.ledger.backlog import ActiveJob, Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.log_fields import event
from worker.contract.queue.dispatcher import Dispatcher
from worker.steward.feeder import send
from worker.steward.isolation import each
from worker.telemetry import metrics

log = logging.getLogger(__name__)


class Reconciler:
    """One look at a time: `look`."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher, silence_seconds: float) -> None:
        """`silence_seconds`: without a sign of life before a chunk is looked for."""
        self._ledger, self._dispatcher = ledger, dispatcher
        self._backlog = Backlog(ledger.link)
        self._silence = silence_seconds

    def look(self) -> int:
        """Look at all jobs; how many chunks were published again.

        Raises:
            ServiceError: Redis or S3 did not do their part; the next look finds the same.
        """
        silent = [(job, chunks) for job in self._backlog.active() if (chunks := self._silent(job))]
        if not silent:
            return 0
        present = self._backlog.in_broker()
        return sum(each(silent, lambda found: self._again(*found, present)))

    def _silent(self, job: ActiveJob) -> list[int]:
        return self._backlog.silent(job.view.job, self._silence) if job.outstanding else []

    def _again(self, job: ActiveJob, chunks: list[int], present: set[str]) -> int:
        view = job.view
        missing = [chunk for chunk in chunks if redis_keys.task_id(view.job, view.epoch, chunk) not in present]
        if not missing:
            return 0
        again = self._backlog.reclaim(view.job, missing, self._silence)
        if not again:
            return 0
        log.warning("lost chunks are queued again", extra=event("chunks_republished", job=view.job, chunks=again))
        sent = send(self._ledger, self._dispatcher, view, again)
        metrics.REPUBLISHED.inc(sent)
        return sent
