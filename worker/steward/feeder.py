"""Keep the window of chunk messages full, fairly over all jobs. One process of the fleet does it at a time.

Nothing else fills the broker, so a job of ten million images takes no more room there than a job of a hundred. The same
loop provides back-pressure, fair shares, priorities, pause and cancel.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from worker.contract.errors import ContractError, ObjectMissing, ServiceError, StoreUnavailable
from worker.contract.job import JobView
from worker.contract.ledger.backlog import Backlog, unblocked
from worker.contract.ledger.chunks import longest_store_pause
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.ledger.records import JobRecord
from worker.contract.log_fields import event
from worker.contract.messages import Priority
from worker.contract.queue.dispatcher import WINDOW_PER_WORKER, Dispatcher, window
from worker.contract.s3url import S3Url
from worker.steward.isolation import Isolation, passes
from worker.telemetry import metrics

log = logging.getLogger(__name__)

WEIGHTS = {Priority.LOW: 1, Priority.NORMAL: 4, Priority.HIGH: 16}
"""Relative shares of the workers that jobs get."""

MAX_PENDING_OUTCOMES = 8_000
"""Outcomes of a job not yet in S3 above which the job gets no further chunks: about 1.5 MB of Redis."""

UNREAD_SECONDS = 10.0
"""Time for which a manifest is not read after S3 did not answer: meanwhile other jobs get their chunks."""

_LONGEST_TRY_SECONDS = 900.0
"""Time after which a try of S3 that has neither succeeded nor failed holds up no job any more."""

_STARVED = 0.5
"""Load, as a fraction of its share, below which a job is served first."""


@dataclass(frozen=True)
class Grant:
    """Chunks that a job may publish now."""

    job: JobRecord
    chunks: int
    express: bool
    """The job has less than its share: its chunks go before those in the queue."""


def reachable(jobs: Sequence[JobRecord]) -> tuple[list[JobRecord], list[JobRecord]]:
    """Separate the jobs for which S3 is unavailable, so that they take no worker's time from the others.

    Args:
        jobs: running jobs.

    Returns:
        The jobs that use no bucket that is unavailable; and for each such bucket at most one job, of which one chunk
        shall find out whether it is back: when it is time for a try, and no other chunk tries it.
    """
    away: dict[str, list[JobRecord]] = {}
    for job in jobs:
        if _is_held(job):
            away.setdefault(job.view.store_bucket, []).append(job)
    tried = [held for held in away.values() if not any(job.store_wait > 0 or job.outstanding for job in held)]
    trying = [next(job for job in held if job.waiting) for held in tried if any(job.waiting for job in held)]
    others = [job for job in jobs if not _is_held(job) and not away.keys() & _buckets(job)]
    return others, trying


def _is_held(job: JobRecord) -> bool:
    """Return whether S3 is unavailable for a job, by a note that workers may have written.

    Whoever can write records must not stop the jobs of others: not by another bucket, nor by a time that never comes.
    """
    if job.view.store_retry_at is None or not -_LONGEST_TRY_SECONDS <= job.store_wait <= longest_store_pause():
        return False
    picture = job.view.options.background_picture
    return job.view.store_bucket in {""} | _buckets(job) | ({S3Url.parse(picture).bucket} if picture else set())


def _buckets(job: JobRecord) -> set[str]:
    return {job.view.options.source.bucket, job.view.options.dest.bucket}


def allot(jobs: Sequence[JobRecord], room: int, capacity: int, served: dict[str, float] | None = None) -> list[Grant]:
    """Divide the free room of the window over the jobs with chunks to publish.

    Stride scheduling: each chunk goes to the job that has received the least for its weight. The shares are right over
    time, even where a share is less than one chunk at once. A job with less than half its share outstanding does not
    wait until the window has room: it may overfill the window by half of the capacity, and its chunks are served first.
    So a small job starts on the next free worker.

    Args:
        jobs: running jobs; a job with nothing to publish gets nothing.
        room: messages that may be published; negative when the window is overfull.
        capacity: outstanding chunks of the fleet when the window is full.
        served: chunks that each job has received divided by its weight; updated here. A job that is not in it starts
            level with the job that has received the least.

    Returns:
        One grant per job that may publish chunks.
    """
    hungry = {job.view.job: job for job in jobs if job.waiting > 0}
    weights = {name: WEIGHTS[job.view.policy.priority] for name, job in hungry.items()}
    share = {name: capacity * weight / sum(weights.values()) for name, weight in weights.items()}
    given = dict.fromkeys(hungry, 0)
    served = {} if served is None else served
    for name in served.keys() - hungry.keys():
        del served[name]
    least = min(served.values(), default=0.0)
    for name in hungry.keys() - served.keys():
        served[name] = least + hungry[name].outstanding / weights[name]

    def load(name: str) -> float:
        return (hungry[name].outstanding + given[name]) / share[name]

    def order(name: str) -> tuple[float, float]:
        return served[name], load(name)

    def starved(name: str) -> bool:
        # A job that has been served ahead of others is not starved: with little capacity its share may be below one.
        ahead = (served[name] - min(served.values())) * weights[name]
        return len(hungry) > 1 and share[name] >= 1 and load(name) < _STARVED and ahead < _STARVED * share[name]

    express = {name for name in hungry if starved(name)}
    spare = capacity // 2 + 1 + min(0, room)
    while takers := [name for name, job in hungry.items() if given[name] < job.waiting]:
        if room > 0:
            room -= 1
        elif spare > 0 and (takers := [name for name in takers if name in express and starved(name)]):
            spare -= 1
        else:
            break
        next_one = min(takers, key=order)
        given[next_one] += 1
        served[next_one] += 1 / weights[next_one]
    return [Grant(hungry[name], count, name in express) for name, count in given.items() if count]


class Feeder:
    """Publishes chunks: call `tick` at intervals."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher) -> None:
        """Use the connections of the caller's ledger and dispatcher."""
        self._ledger, self._dispatcher = ledger, dispatcher
        self._backlog, self._fleet = Backlog(ledger.connection), Fleet(ledger.connection)
        self._served: dict[str, float] = {}
        self._unread: dict[str, float] = {}
        """Job or bucket -> time (`time.monotonic`) until which its manifest is not read: S3 did not answer."""
        self._isolation = Isolation("feed")
        self.satisfied = False
        """After the last call there were jobs, and all of them waited for the fleet only."""

    def tick(self) -> int:
        """Fill the window, and return the number of chunks published.

        Raises:
            ServiceError: Redis or S3 failed; chunks that were taken but not published are taken again, or the
                reconciler finds them.
        """
        self.satisfied = False
        active = self._backlog.active()
        now = time.monotonic()
        self._unread = {name: until for name, until in self._unread.items() if until > now}
        jobs, trying = reachable([job for job in unblocked(active) if job.pending_outcomes < MAX_PENDING_OUTCOMES])
        jobs, trying = list(filter(self._is_read, jobs)), list(filter(self._is_read, trying))
        if not jobs and not trying:
            return 0
        workers = len(self._fleet.live())
        room = window(workers) - self._backlog.queued()
        grants = allot(jobs, room, (WINDOW_PER_WORKER + 1) * max(1, workers), self._served)
        grants += [Grant(job, 1, express=False) for job in trying]  # last: they may have to wait for S3
        published = sum(self._isolation.run_all(grants, self._publish, lambda grant: grant.job.view.job))
        metrics.PUBLISHED.inc(published)
        self.satisfied = len(jobs) == len(active) and not grants
        return published

    def _publish(self, grant: Grant) -> int:
        view = grant.job.view
        if not self._is_read(grant.job):  # another job has just found the bucket to be away
            return 0
        chunks = self._backlog.take(view.job, grant.chunks, epoch=view.epoch)
        try:
            return send(self._ledger, self._dispatcher, view, chunks, express=grant.express)
        except StoreUnavailable as error:
            name = view.job if error.of_object else error.bucket or view.job
            self._unread[name] = time.monotonic() + UNREAD_SECONDS
            raise

    def _is_read(self, job: JobRecord) -> bool:
        return not self._unread.keys() & {job.view.job, job.view.options.dest.bucket}


def send(ledger: Ledger, dispatcher: Dispatcher, view: JobView, chunks: Sequence[int], *, express: bool = False) -> int:
    """Publish chunks, and return their number; cancel a job whose manifest cannot be read.

    Raises:
        ServiceError: Redis or S3 failed; the chunks are taken again.
    """
    try:
        dispatcher.send(view, chunks, express=express)
    except (ContractError, ObjectMissing) as error:
        log.error(error, extra=event("manifest_invalid", job=view.job))
        ledger.cancel(view.job, f"its manifest cannot be read: {error}")
        return 0
    except ServiceError as error:
        # Otherwise the whole job would be taken, window after window, while a service is down.
        Backlog(ledger.connection).untake(view.job, chunks, epoch=view.epoch)
        if passes(error):
            raise
        log.error(error, extra=event("manifest_invalid", job=view.job))
        ledger.cancel(view.job, f"its manifest cannot be read: {error}")
        return 0
    return len(chunks)
