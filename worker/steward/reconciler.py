"""Find lost chunks and publish them again, because Celery's Redis transport can lose messages.

A message is lost if a worker dies after Redis has handed it out and before kombu has recorded that. The ledger keeps
the time of the last sign of life of every published chunk. A chunk that is silent, waits in no queue and is held by no
worker is lost.

A new primary of Redis may lack what the previous one had acknowledged last: outcomes, and messages that a worker had
taken or acknowledged. It is an earlier state of the same data, so each unfinished chunk is known to be outstanding; but
nobody may be working on it. So every chunk without a sign of life since the change is lost, `AFTER_CHANGE_SECONDS`
later. Workers report the chunks that they still run when they have connected again.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable

from worker.contract import redis_keys
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.ledger.records import JobRecord
from worker.contract.log_fields import event
from worker.contract.queue.dispatcher import Dispatcher
from worker.steward.feeder import send
from worker.steward.isolation import Isolation
from worker.telemetry import metrics

log = logging.getLogger(__name__)


AFTER_CHANGE_SECONDS = 5.0
"""Time that workers have to connect to a new primary, and to report the chunks that they run."""


class Reconciler:
    """Searches all jobs for lost chunks: call `scan` at intervals."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher, silence_seconds: float) -> None:
        """Send nothing yet; a chunk without a sign of life for `silence_seconds` may be lost."""
        self._ledger, self._dispatcher = ledger, dispatcher
        self._backlog = Backlog(ledger.connection)
        self._silence = silence_seconds
        self._isolation = Isolation("feed")

    def scan(self) -> int:
        """Publish the lost chunks of all jobs, or of the next part of them (`Backlog.active`); return their number.

        Raises:
            ServiceError: Redis or S3 failed; the next scan finds the same chunks.
        """
        return self._scan(self._backlog.active(), self._silence, self._backlog.in_broker)

    def scan_after_change(self, seconds: float) -> int:
        """Publish the chunks that nobody works on since the primary changed, `seconds` ago; return their number.

        Raises:
            ServiceError: as in `scan`.
        """
        # A lease from before the change belongs to a connection that is closed: nobody renews it.
        in_broker = functools.partial(self._backlog.in_broker, held_within=seconds)
        found = self._scan_all(min(seconds, self._silence), in_broker)
        self._backlog.end_leases(seconds)
        # For a moment some connections of a process still lead to the old primary: a chunk that was taken on the new
        # one may have been published on the old one.
        return found + self._scan_all(min(AFTER_CHANGE_SECONDS, self._silence), self._backlog.in_broker)

    def recheck(self) -> None:
        """Let workers look for the outputs of all active jobs first: outcomes may be missing.

        Raises:
            ServiceError: as in `scan`.
        """
        jobs = itertools.chain.from_iterable(self._backlog.parts())
        self._isolation.run_all(jobs, lambda job: self._backlog.recheck(job.view.job), _name)

    def _scan_all(self, silence: float, in_broker: Callable[[set[str]], set[str]]) -> int:
        """Scan all jobs part by part: an error of one part is raised after the last."""
        published, errors = 0, []
        for jobs in self._backlog.parts():
            try:
                published += self._scan(jobs, silence, in_broker)
            except Exception as error:  # noqa: BLE001 -- the jobs of the other parts are scanned whatever it is
                errors.append(error)
        if errors:
            raise errors[0]
        return published

    def _scan(self, active: list[JobRecord], silence: float, in_broker: Callable[[set[str]], set[str]]) -> int:
        jobs = [job for job in active if job.outstanding]
        found = self._isolation.run_all(jobs, lambda job: (job, self._backlog.silent(job.view.job, silence)), _name)
        silent = [(job, chunks) for job, chunks in found if chunks]
        if not silent:
            return 0
        present = in_broker({task for job, chunks in silent for task in _tasks(job, chunks)})
        again = self._isolation.run_all(
            silent, lambda found: self._republish(*found, present, silence), lambda found: _name(found[0])
        )
        return sum(again)

    def _republish(self, job: JobRecord, chunks: list[int], present: set[str], silence: float) -> int:
        view = job.view
        missing = [chunk for chunk, task in zip(chunks, _tasks(job, chunks), strict=True) if task not in present]
        if not missing:
            return 0
        again = self._backlog.take_lost(view.job, missing, silence)
        if not again:
            return 0
        log.warning("lost chunks are queued again", extra=event("chunks_republished", job=view.job, chunks=again))
        sent = send(self._ledger, self._dispatcher, view, again)
        metrics.REPUBLISHED.inc(sent)
        return sent


def _tasks(job: JobRecord, chunks: list[int]) -> list[str]:
    return [redis_keys.task_id(job.view.job, job.view.epoch, chunk) for chunk in chunks]


def _name(job: JobRecord) -> str:
    return job.view.job
