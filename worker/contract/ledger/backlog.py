"""What the steward does with all jobs that have not ended: publish chunks, find lost ones, save outcomes, end jobs."""

from __future__ import annotations

import functools
import heapq
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple, Self, cast

from worker.contract import redis_keys
from worker.contract.job import JobStatus, JobView, UnreadableJob, is_job_id
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.records import MAX_ACTIVE, JobRecord, Records, deactivate
from worker.contract.s3url import S3Url

PENDING_BYTES = 16 * 1024 * 1024
"""Most bytes of outcomes that one call reads."""

MAX_OUTCOME_BYTES = 64 * 1024
"""Longest outcome that is read. One of an image with the longest key and three outputs has about 12 kB."""

_DELETED_AT_ONCE = 2_000
"""Outcomes deleted by one script: Lua passes at most 8,000 arguments on."""

_SLICE = 500
"""Messages of a queue that one command reads."""

_MOST_SCANNED = 5_000_000
"""Messages of a queue that are looked at. Redis holds no more in 4 GB."""

_TASK_ID = re.compile(r'"id"\s*:\s*"([\w-]+\.\d+\.\d+)"', re.ASCII)
"""In the text of a message, as `messages.lua` finds it."""

_NAMES = 1_000
"""Names of the index of all jobs that one command looks at: a few milliseconds."""

_MAX_SILENT = 5_000
"""Silent chunks of a job found at once; the next scan finds the rest."""


@dataclass(frozen=True)
class PendingOutcome:
    """One outcome that is not in S3 yet."""

    id: str
    """`milliseconds-number` by the clock of Redis: the entry's id in the job's stream."""

    line: str
    """An `Outcome` as JSON; empty if the entry is none."""

    server: str = field(default="", compare=False)
    """The server that gave the id; a new primary may give it to another outcome."""

    @property
    def dated(self) -> str:
        """Return the line with its time as field `at`. Spliced into the text, because there may be millions."""
        return f'{{"at":{int(self.id.partition("-")[0]) / 1000},{self.line[1:]}'


class Place(NamedTuple):
    """Where a job writes, and its place in the queue: all that decides which jobs wait for it."""

    age: tuple[float, str]
    dest: S3Url

    @classmethod
    def of(cls, job: JobView) -> Self:
        """Return that of a job, in little memory: one wide character would make each of a text take four bytes."""
        dest = job.options.dest
        return cls(age(job), S3Url(dest.bucket, dest.key.encode().decode("latin-1")))


def overlapping(one: S3Url, two: S3Url) -> bool:
    """Return whether two destinations could take the same outputs: one contains the other."""
    return one.bucket == two.bucket and (one.key.startswith(two.key) or two.key.startswith(one.key))


def blocker(job: JobView, jobs: Sequence[JobRecord]) -> JobView | None:
    """Return the first of the active jobs, oldest first, that `job` must wait for.

    Two jobs that could write the same outputs run one after the other, never interleaved.
    """
    for other in jobs:
        if other.view.job == job.job:
            return None
        if overlapping(other.view.options.dest, job.options.dest):
            return other.view
    return None


def unblocked(jobs: Sequence[JobRecord], others: Iterable[Place] = ()) -> list[JobRecord]:
    """Return the running ones of `jobs` that wait for no other active job.

    Args:
        jobs: active jobs, oldest first.
        others: of further active jobs.
    """
    own = [(Place.of(job.view), job) for job in jobs]
    further = [(place, None) for place in sorted(others, key=lambda place: place.age)]
    queue = list(heapq.merge(own, further, key=lambda pair: pair[0].age))
    oldest = _oldest_overlapping([place.dest for place, _ in queue])
    found = [job for number, (_, job) in enumerate(queue) if oldest[number] >= number]
    return [job for job in found if job is not None and job.view.status is JobStatus.RUNNING]


def _oldest_overlapping(places: Sequence[S3Url]) -> list[int]:
    """Return for each place the first of the others that contains it or lies in it; `len(places)` without one.

    In order of their names, what lies in a place follows it directly: comparing all pairs would take a minute for ten
    thousand jobs.
    """
    none = len(places)
    above, below = [none] * none, [none] * none
    path: list[int] = []

    def leave() -> None:
        inner = path.pop()
        if path:
            below[path[-1]] = min(below[path[-1]], below[inner], inner)

    for number in sorted(range(none), key=lambda number: (places[number].bucket, places[number].key)):
        while path and not overlapping(places[path[-1]], places[number]):
            leave()
        if path:
            above[number] = min(above[path[-1]], path[-1])
        path.append(number)
    while path:
        leave()
    return [min(pair) for pair in zip(above, below, strict=True)]


class Backlog:
    """Works over a `RedisConnection` of the caller."""

    def __init__(self, connection: RedisConnection) -> None:
        """Send nothing yet."""
        self._connection = connection
        self._prefix = connection.prefix
        self._records = Records(connection)

    # -- publishing -----------------------------------------------------------------------------------------------

    def active(self) -> list[JobRecord]:
        """Return the jobs that have not ended, oldest first; leave out those that cannot be read.

        Of more jobs than are looked at once (`MAX_ACTIVE`), each call, or call of `tidy`, returns the next part.
        """
        return _oldest_first(self._records.active()[0])

    @property
    def whole(self) -> bool:
        """Whether the last look at the active jobs reached all of them."""
        return self._records.rotation.whole

    @property
    def ends_round(self) -> bool:
        """Whether the last look reached the last part of them: every job has had its turn."""
        return self._records.rotation.ends_round

    def parts(self) -> Iterator[list[JobRecord]]:
        """Iterate over all active jobs, in parts as of `active`; a part is read when it is asked for."""
        records = Records(self._connection)
        while True:
            yield _oldest_first(records.active()[0])
            if records.rotation.ends_round:
                return

    def first_blocker(self, job: JobView) -> JobView | None:
        """Return a job that `job` must wait for, however many are active: that of `blocker` if they are one part."""
        parts = ([other for other in part if age(other.view) < age(job)] for part in self.parts())
        return next(filter(None, (blocker(job, older) for older in parts)), None)

    def first_writer(self, dest: S3Url) -> JobView | None:
        """Return an active job that a job submitted now to `dest` would wait for: the oldest if they are one part."""
        jobs = itertools.chain.from_iterable(self.parts())
        return next((job.view for job in jobs if overlapping(job.view.options.dest, dest)), None)

    def tidy(self) -> tuple[list[JobRecord], list[UnreadableJob]]:
        """Put jobs that cannot be read aside, and names without a record; delete shared keys of another type.

        A job that was put aside appears in the index again once it can be read: by a newer steward, or mended by hand.

        Returns:
            The jobs that have not ended, or the next part of them, oldest first; and the jobs put aside by this call.
        """
        shared, tidy = redis_keys.shared(self._prefix), self._connection.script("tidy")
        self._connection.call(lambda: tidy(keys=list(shared), args=[MAX_ACTIVE, *shared.values()]))
        found, unreadable, unknown = self._records.active()
        if unreadable or unknown:
            self._put_aside([job.job for job in unreadable], unknown)
        return _oldest_first(found), unreadable

    def unreadable(self) -> int:
        """Return the number of jobs that were put aside because they could not be read."""
        index = redis_keys.unreadable(self._prefix)
        return cast(int, self._connection.call(lambda: self._connection.client.scard(index)))

    def readmit(self) -> None:
        """Look at the jobs that were put aside again, and take back those that can be read now."""
        index, active = redis_keys.unreadable(self._prefix), redis_keys.active(self._prefix)
        gone, again = self._records.readable_again(MAX_ACTIVE)

        def write() -> None:
            pipeline = self._connection.client.pipeline(transaction=True)
            if again:
                pipeline.sadd(active, *again)
            pipeline.srem(index, *gone)
            pipeline.execute()

        if gone:
            self._connection.call(write)

    def prune(self) -> int:
        """Remove names without a record from the index of all jobs, and return their number.

        Redis has forgotten these jobs; or a program wrote names of none, which would hide the others from users.
        """
        index, script = redis_keys.jobs(self._prefix), self._connection.script("prune")
        before, after = redis_keys.job(self._prefix, "\n").split("\n")
        first = removed = 0
        while True:
            args = [before, after, first, first + _NAMES - 1]
            looked, gone = self._connection.call(functools.partial(script, keys=[index], args=args))
            first, removed = first + int(looked) - int(gone), removed + int(gone)
            if looked < _NAMES:
                return removed

    def _put_aside(self, unreadable: Sequence[str], unknown: Sequence[str]) -> None:
        active, jobs = redis_keys.active(self._prefix), redis_keys.jobs(self._prefix)

        def write() -> None:
            now = self._connection.client.time()[0]
            pipeline = self._connection.client.pipeline(transaction=True)
            pipeline.srem(active, *unreadable, *unknown)
            if unreadable:
                pipeline.sadd(redis_keys.unreadable(self._prefix), *unreadable)
                pipeline.zadd(jobs, dict.fromkeys(unreadable, now), nx=True)  # `producer list` shows it
            pipeline.execute()

        self._connection.call(write)

    def queued(self) -> int:
        """Return the number of chunk messages that wait in the broker."""

        def read() -> int:
            pipeline = self._connection.client.pipeline(transaction=False)
            for name in redis_keys.QUEUES:
                pipeline.llen(redis_keys.queue(self._prefix, name))
            return sum(pipeline.execute())

        return cast(int, self._connection.call(read))

    def take(self, job: str, chunks: int, *, epoch: int) -> list[int]:
        """Choose up to `chunks` chunks of a running job to publish now; they count as outstanding at once.

        Returns:
            Chunk numbers. Empty if the job's epoch is no longer `epoch`: messages of that epoch would be stale.
        """
        return [int(chunk) for chunk in self._connection.run("take", job, chunks, epoch)]

    def untake(self, job: str, chunks: Sequence[int], *, epoch: int) -> None:
        """Return chunks that were taken but could not be published, so that they are taken again."""
        self._connection.run("untake", job, epoch, *chunks)

    # -- another primary ------------------------------------------------------------------------------------------

    def seconds_since_change(self) -> float | None:
        """Return how long ago another server became the primary, or this one was restarted; None if it never was.

        The change is noticed by this call, so call it often.
        """
        key, script = redis_keys.primary(self._prefix), self._connection.script("primary")
        seconds = self._connection.call(lambda: script(keys=[key]))
        return float(seconds) if seconds else None

    def recheck(self, job: str) -> None:
        """Let workers look for outputs of a job before they make new ones, because outcomes may be missing."""
        self._connection.run("recheck", job)

    # -- lost chunks ----------------------------------------------------------------------------------------------

    def silent(self, job: str, seconds: float) -> list[int]:
        """Return the outstanding chunks of a job without a sign of life for `seconds`."""
        return [int(chunk) for chunk in self._connection.run("silent", job, seconds, _MAX_SILENT)]

    def in_broker(self, tasks: Set[str], *, held_within: float | None = None) -> set[str]:
        """Return those of some task ids whose message waits in a queue or is held by a worker.

        Reads the queues in slices, so that neither memory nor the time of one command grows with them. A message that
        is put back meanwhile may be missed: its chunk is then published twice, which the ledger recognises.

        Args:
            tasks: the ids.
            held_within: leave out messages whose lease began, or was renewed, before that many seconds.
        """
        found: set[str] = set()
        for name in redis_keys.QUEUES:
            # From the end at which messages are added: those that are taken at the other end move nothing.
            for first in range(0, _MOST_SCANNED, _SLICE):
                count, ids = self._ids(redis_keys.queue(self._prefix, name), first, first + _SLICE - 1)
                found |= tasks & set(ids)
                if count < _SLICE or len(found) == len(tasks):
                    break
        expired = [] if held_within is None else self._connection.call(lambda: self._leases_before(held_within))
        return found | tasks & set(self._ids(redis_keys.unacked(self._prefix), without=expired)[1])

    def end_leases(self, seconds: float) -> None:
        """Remove the messages that were handed out more than `seconds` ago, before the primary changed, and not since.

        Nobody renews their leases. Their chunks are finished or published again; a message whose chunk a worker still
        runs is left.
        """
        unacked, index = redis_keys.unacked(self._prefix), redis_keys.unacked_index(self._prefix)

        def old() -> dict[str, str | None]:
            tags = self._leases_before(seconds)
            texts = self._connection.client.hmget(unacked, tags) if tags else []
            return dict(zip(tags, texts, strict=True))

        found = {tag: _held_id(text or "") for tag, text in self._connection.call(old).items()}
        chunks = {tag: id for tag, id in found.items() if id is not None and is_job_id(id[0])}

        def remove() -> None:
            pipeline = self._connection.client.pipeline(transaction=False)
            for job, _, chunk in chunks.values():
                pipeline.hexists(redis_keys.job_keys(self._prefix, job).running, str(chunk))
            tags = [tag for tag, runs in zip(chunks, pipeline.execute(), strict=True) if not runs]
            if tags:
                pipeline = self._connection.client.pipeline(transaction=True)
                pipeline.hdel(unacked, *tags)
                pipeline.zrem(index, *tags)
                pipeline.execute()

        if chunks:
            self._connection.call(remove)

    def held(self, job: str) -> bool:
        """Return whether a worker holds a message of a job under a lease that has not expired. O(workers)."""
        ids = map(redis_keys.parse_task_id, self._ids(redis_keys.unacked(self._prefix))[1])
        return any(id is not None and id[0] == job for id in ids)

    def _leases_before(self, seconds: float) -> list[str]:
        """Return the tags of the messages whose lease began, or was renewed, before that many seconds."""
        oldest = self._connection.client.time()[0] - seconds
        index = redis_keys.unacked_index(self._prefix)
        return cast(list[str], self._connection.client.zrangebyscore(index, "-inf", f"({oldest}"))

    def _ids(self, key: str, first: int = 0, last: int = 0, *, without: Sequence[str] = ()) -> tuple[int, list[str]]:
        script = self._connection.script("messages")
        count, ids = self._connection.call(lambda: script(keys=[key], args=[first, last, *without]))
        return int(count), cast(list[str], ids)

    def take_lost(self, job: str, chunks: Sequence[int], seconds: float) -> list[int]:
        """Choose those of `chunks` that are still silent for `seconds` and must be published again.

        The silence of the returned chunks starts again now. In a job that is not running nothing is published: a chunk
        of a paused job waits for the resume.
        """
        return [int(chunk) for chunk in self._connection.run("take_lost", job, seconds, *chunks)]

    # -- outcomes and endings -------------------------------------------------------------------------------------

    def settle(self, job: str, seconds: float) -> bool:
        """Close a stopping job once no worker runs a chunk of it; a worker silent for `seconds` counts as gone.

        Returns:
            Whether this call closed it.
        """
        return bool(self._connection.run("settle", job, seconds))

    def pending_outcomes(self, job: str, count: int) -> list[PendingOutcome]:
        """Return the oldest outcomes that are not in S3 yet, at most `count` and about `PENDING_BYTES`."""
        server, *found = self._connection.run("pending", job, count, PENDING_BYTES, MAX_OUTCOME_BYTES)
        return [PendingOutcome(id, line, server) for id, line in zip(found[::2], found[1::2], strict=True)]

    def recent(self, job: str, count: int = 1000) -> Iterator[PendingOutcome]:
        """Iterate over the outcomes that are not in S3 yet, newest first, reading `count` at a time.

        Outcomes that are moved to S3 during the iteration may be missing.
        """
        key, before = redis_keys.job_keys(self._prefix, job).log, "+"
        while True:
            entries = self._connection.call(
                functools.partial(self._connection.client.xrevrange, key, before, "-", count)
            )
            yield from (PendingOutcome(id, fields.get("o", "")) for id, fields in entries)
            if len(entries) < count:
                return
            before = f"({entries[-1][0]}"

    def delete_pending(self, job: str, entries: Sequence[PendingOutcome]) -> int:
        """Delete outcomes that are in S3 now, and return their number.

        None is deleted if another server has become the primary since they were read.
        """
        deleted = 0
        for start in range(0, len(entries), _DELETED_AT_ONCE):
            batch = entries[start : start + _DELETED_AT_ONCE]
            deleted += int(self._connection.run("delete_pending", job, batch[0].server, *(one.id for one in batch)))
        return deleted

    def close(
        self,
        job: str,
        epoch: int,
        keep_seconds: int,
        reason: str = "",
        *,
        on_unconfirmed: Callable[[], None] = lambda: None,
    ) -> bool:
        """End a job whose lists are in S3; Redis forgets it after `keep_seconds`.

        Args:
            job: id of the job.
            epoch: of its lists.
            keep_seconds: until Redis forgets it.
            reason: why its lists are incomplete; empty: they are complete.
            on_unconfirmed: called if too few replicas confirm it (`MASKMILL_REDIS__WAIT_REPLICAS`).

        Returns:
            Whether this call ended it.
        """
        args = (epoch, keep_seconds, reason)
        ended = bool(self._connection.run_replicated("close", job, *args, on_unconfirmed=on_unconfirmed))
        self.deactivate(job)
        return ended

    def deactivate(self, job: str) -> None:
        """Remove a job that has ended from the set of active jobs."""
        deactivate(self._connection, job)


def age(job: JobView) -> tuple[float, str]:
    """Return what active jobs are sorted by, the oldest first: when it joined the queue."""
    return job.queued_at or job.created_at, job.job


def _oldest_first(jobs: Iterable[JobRecord]) -> list[JobRecord]:
    return sorted(jobs, key=lambda job: age(job.view))


def _held_id(text: str) -> tuple[str, int, int] | None:
    """Return job, epoch and chunk of a message that a worker holds; None if it is not one of ours."""
    found = _TASK_ID.search(text)
    return None if found is None else redis_keys.parse_task_id(found[1])
