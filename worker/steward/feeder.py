"""Keep the window of chunk messages full, fairly over all tenants and their jobs.

One process of the fleet does it at a time. Nothing else fills the broker, so a job of ten million images takes no more
room there than a job of a hundred. The same loop provides back-pressure, fair shares, priorities, pause and cancel.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from worker.contract.errors import ContractError, ObjectMissing, ServiceError, StoreUnavailable
from worker.contract.job import JobView
from worker.contract.ledger.backlog import Backlog, Place, unblocked
from worker.contract.ledger.chunks import longest_store_pause
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.ledger.records import JobRecord
from worker.contract.log_fields import event
from worker.contract.messages import Priority
from worker.contract.queue.dispatcher import Dispatcher, window
from worker.contract.s3url import S3Url
from worker.steward.isolation import Isolation, passes
from worker.steward.round_memory import RoundMemory
from worker.steward.tenants import tenant_of
from worker.telemetry import metrics

log = logging.getLogger(__name__)

WEIGHTS = {Priority.LOW: 1, Priority.NORMAL: 4, Priority.HIGH: 16}
"""Relative shares of the workers that the jobs of a tenant get; a tenant has that of its most urgent job."""

MAX_PENDING_OUTCOMES = 8_000
"""Outcomes of a job not yet in S3 above which the job gets no further chunks: about 1.5 MB of Redis."""

UNREAD_SECONDS = 10.0
"""Time for which a manifest is not read after S3 did not answer: meanwhile other jobs get their chunks."""

_LONGEST_TRY_SECONDS = 900.0
"""Time after which a try of S3 that has neither succeeded nor failed holds up no job any more."""

MAX_WINDOWS = 8
"""The window is at most this many times its usual size."""

_PACES = 8.0
"""Limits of the pace of a job's images compared with the usual one: a measurement may be of few images."""

_MESSAGE_SECONDS = 0.1
"""Core seconds of a chunk beside those of its images: its message, its start and release, its share of an ending."""

_MAX_PLACES = 10_000
"""Jobs whose destinations are remembered between looks, about 1 kB each: one of more jobs may not be waited for."""

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


def allot(
    jobs: Sequence[JobRecord],
    room: int,
    capacity: int,
    served: dict[str, float] | None = None,
    tenants: Collection[str] = (),
) -> list[Grant]:
    """Divide the free room of the window over the tenants, and the part of each over its jobs with chunks to publish.

    Stride scheduling at both levels: each chunk goes to the tenant, and there to the job, that has received the least
    for its weight. What a job receives is measured in time: images, times how long those of the job take compared with
    other jobs. So neither the number of a tenant's jobs nor the size of its chunks nor that of its pictures takes from
    another tenant. The shares are right over time, even where a share is less than one chunk at once. A job with less
    than half its share outstanding does not wait until the window has room: it may overfill the window by half of the
    capacity, and its chunks are served first. So a small job starts on the next free worker.

    Args:
        jobs: running jobs; a job with nothing to publish gets nothing.
        room: messages that may be published; negative when the window is overfull.
        capacity: outstanding chunks of the fleet when the window is full.
        served: what each job, and each tenant, has received divided by its weight; updated here. One that is not in it
            starts level with the one that has received the least.
        tenants: prefixes of tenants that share a bucket; see `tenant_of`.

    Returns:
        One grant per job that may publish chunks.
    """
    hungry = {job.view.job: job for job in jobs if job.waiting > 0}
    if not hungry:
        return []
    shares = _Shares(hungry, capacity, {} if served is None else served, tenants)
    express = {name for name in hungry if shares.starved(name)}
    spare = capacity // 2 + 1 + min(0, room)
    given = shares.given
    while takers := [name for name, job in hungry.items() if given[name] < job.waiting]:
        if room > 0:
            room -= 1
        elif spare > 0 and (takers := [name for name in takers if name in express and shares.starved(name)]):
            spare -= 1
        else:
            break
        shares.give(min(takers, key=shares.order))
    return [Grant(hungry[name], count, name in express) for name, count in given.items() if count]


class _Shares:
    """What jobs and their tenants get of the window, and have received."""

    def __init__(
        self, hungry: Mapping[str, JobRecord], capacity: int, served: dict[str, float], tenants: Collection[str]
    ) -> None:
        self._hungry, self._served = hungry, served
        self.given = dict.fromkeys(hungry, 0)
        self._cost = _costs(hungry.values())
        self._weight: dict[str, float] = {n: WEIGHTS[job.view.policy.priority] for n, job in hungry.items()}
        # The names of tenants cannot be those of jobs, so both can be in `served`.
        self._tenant = {n: f"s3://{tenant_of(job.view.options.dest, tenants)}" for n, job in hungry.items()}
        self._jobs: dict[str, list[str]] = {}
        for name, tenant in self._tenant.items():
            self._jobs.setdefault(tenant, []).append(name)
        for tenant, names in self._jobs.items():
            self._weight[tenant] = max(self._weight[name] for name in names)
        self._share = self._shares(capacity)
        for name in served.keys() - self._weight.keys():
            del served[name]
        for names in self._jobs.values():
            self._enter(names, {name: hungry[name].outstanding * self._cost[name] for name in names}, capacity)
        held = {t: sum(hungry[n].outstanding * self._cost[n] for n in names) for t, names in self._jobs.items()}
        self._enter(list(self._jobs), held, capacity)

    def _shares(self, capacity: int) -> dict[str, float]:
        """Return the outstanding chunks that each job may have when the window is full."""
        all_tenants = sum(self._weight[tenant] for tenant in self._jobs)
        shares: dict[str, float] = {}
        for tenant, names in self._jobs.items():
            per_weight = capacity * self._weight[tenant] / all_tenants / sum(self._weight[name] for name in names)
            shares |= {name: per_weight * self._weight[name] for name in names}
        return shares

    def _enter(self, names: Sequence[str], held: Mapping[str, float], capacity: int) -> None:
        """Let newcomers start level with the one that has received the least, and bound how far any is ahead."""
        least = min((self._served[name] for name in names if name in self._served), default=0.0)
        most = 2 * capacity * max(self._cost.values())
        for name in names:
            now = self._served.get(name, least + held[name] / self._weight[name])
            self._served[name] = min(now, least + most / self._weight[name])

    def order(self, name: str) -> tuple[float, float, float]:
        """Return what the next chunk goes by: it goes to the job with the least."""
        return self._served[self._tenant[name]], self._served[name], self._load(name)

    def give(self, name: str) -> None:
        """Give a chunk to a job."""
        self.given[name] += 1
        for one in (name, self._tenant[name]):
            self._served[one] += self._cost[name] / self._weight[one]

    def _load(self, name: str) -> float:
        return (self._hungry[name].outstanding + self.given[name]) / self._share[name]

    def starved(self, name: str) -> bool:
        """Return whether a job has less than half its share, and may go first."""
        share = self._share[name]
        if len(self._hungry) == 1 or share < 1 or self._load(name) >= _STARVED:
            return False
        # A job that has been served ahead of others is not starved: with little capacity its share may be below one.
        tenant = self._tenant[name]
        ahead = max(self._ahead(name, self._jobs[tenant]), self._ahead(tenant, self._jobs)) / self._cost[name]
        return ahead < _STARVED * share

    def _ahead(self, name: str, others: Collection[str]) -> float:
        return (self._served[name] - min(self._served[other] for other in others)) * self._weight[name]


def _costs(jobs: Collection[JobRecord]) -> dict[str, float]:
    """Return what a chunk of each job costs: its images, times their pace compared with the usual one.

    The pace of a job is known after its first chunk; until then it counts as usual.
    """
    paces = {job.view.job: job.view.core_seconds / job.view.done for job in jobs if job.view.done}
    known = [pace for pace in paces.values() if pace > 0]
    usual = statistics.median(known) if known else 1.0

    def pace(job: JobRecord) -> float:
        return min(_PACES, max(1 / _PACES, (paces.get(job.view.job) or usual) / usual))

    def images(job: JobRecord) -> int:
        return max(1, min(job.view.chunk_images, job.view.total or job.view.chunk_images))

    message = _MESSAGE_SECONDS / usual if known else 0.0
    return {job.view.job: images(job) * pace(job) + message for job in jobs}


class Feeder:
    """Publishes chunks: call `tick` at intervals."""

    def __init__(self, ledger: Ledger, dispatcher: Dispatcher, tenants: Collection[str] = ()) -> None:
        """Use the connections of the caller's ledger and dispatcher; `tenants` as in `allot`."""
        self._ledger, self._dispatcher, self._tenants = ledger, dispatcher, tenants
        self._backlog, self._fleet = Backlog(ledger.connection), Fleet(ledger.connection)
        self._served = RoundMemory[float]()
        """As `served` of `allot`: tenants and jobs of other parts (`Backlog.active`) do not begin again."""

        self._places, self._knows_all = RoundMemory[Place](_MAX_PLACES), False
        """Of the active jobs, also of those that the last look did not reach; and whether there was a whole round."""

        self._unread: dict[str, float] = {}
        """Job or bucket -> time (`time.monotonic`) until which its manifest is not read: S3 did not answer."""
        self._isolation = Isolation("feed")
        self._windows, self._had_more = 1, False
        self.satisfied = False
        """After the last call there were jobs, it had looked at all, and all of them waited for the fleet only."""

    def tick(self) -> int:
        """Fill the window, and return the number of chunks published.

        Raises:
            ServiceError: Redis or S3 failed; chunks that were taken but not published are taken again, or the
                reconciler finds them.
        """
        self.satisfied = False
        active = self._backlog.active()
        whole, ends_round = self._backlog.whole, self._backlog.ends_round
        now = time.monotonic()
        self._unread = {name: until for name, until in self._unread.items() if until > now}
        free = self._unblocked(active, ends_round)
        jobs, trying = reachable([job for job in free if job.pending_outcomes < MAX_PENDING_OUTCOMES])
        jobs, trying = list(filter(self._is_read, jobs)), list(filter(self._is_read, trying))
        if not jobs and not trying:
            self._served.keep({}, ends_round=ends_round)
            return 0
        workers = max(1, len(self._fleet.live()))
        queued = self._backlog.queued()
        most = self._window(workers, queued)
        served = self._served.values()
        grants = allot(jobs, most - queued, most + workers, served, self._tenants)
        self._served.keep(served, ends_round=ends_round)
        self._had_more = sum(job.waiting for job in jobs) > sum(grant.chunks for grant in grants)
        grants += [Grant(job, 1, express=False) for job in trying]  # last: they may have to wait for S3
        published = sum(self._isolation.run_all(grants, self._publish, lambda grant: grant.job.view.job))
        metrics.PUBLISHED.inc(published)
        self.satisfied = whole and len(jobs) == len(active) and not grants
        return published

    def _unblocked(self, active: list[JobRecord], ends_round: bool) -> list[JobRecord]:
        """Return the running jobs of a look that wait for no other; none before each active job was looked at."""
        places = {job.view.job: Place.of(job.view) for job in active}
        self._places.keep(places, ends_round=ends_round)
        self._knows_all |= ends_round
        others = [place for name, place in self._places.values().items() if name not in places]
        return unblocked(active, others) if self._knows_all else []

    def _window(self, workers: int, queued: int) -> int:
        """Return how many messages should wait now: more while workers find none although there were chunks left.

        Chunks of a single image may take less time than a call, which reads all jobs.
        """
        if queued == 0 and self._had_more:
            self._windows = min(MAX_WINDOWS, 2 * self._windows)
        elif queued >= window(workers):
            self._windows = max(1, self._windows // 2)
        return self._windows * window(workers)

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
