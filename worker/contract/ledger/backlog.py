"""What the steward does with all jobs that have not ended: publish chunks, find lost ones, save outcomes, end jobs."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from worker.contract import redis_keys
from worker.contract.errors import ContractError
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.connection import RedisConnection
from worker.contract.log_fields import event
from worker.contract.s3url import S3Url

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActiveJob:
    """A job that has not ended, and how far it is."""

    view: JobView
    outstanding: int
    """Chunks that are published and not finished."""

    returned: int
    """Chunks to publish before those at the cursor."""

    pending_outcomes: int
    """Outcomes that are not in S3 yet."""

    store_wait: float = 0.0
    """Seconds until S3, which is unavailable for the job, may be tried again; 0 or less: now, or it is available."""

    @property
    def waiting(self) -> int:
        """Return the number of chunks still to be published."""
        return self.returned + max(0, self.view.chunks - self.view.cursor)


@dataclass(frozen=True)
class PendingOutcome:
    """One outcome that is not in S3 yet."""

    id: str
    """`milliseconds-number` by the clock of Redis: the entry's id in the job's stream."""

    line: str
    """An `Outcome` as JSON."""

    @property
    def dated(self) -> str:
        """Return the line with its time as field `at`. Spliced into the text, because there may be millions."""
        return f'{{"at":{int(self.id.partition("-")[0]) / 1000},{self.line[1:]}'


def overlapping(one: S3Url, two: S3Url) -> bool:
    """Return whether two destinations could take the same outputs: one contains the other."""
    return one.bucket == two.bucket and (one.key.startswith(two.key) or two.key.startswith(one.key))


def blocker(job: JobView, jobs: Sequence[ActiveJob]) -> JobView | None:
    """Return the first of the active jobs, oldest first, that `job` must wait for.

    Two jobs that could write the same outputs run one after the other, never interleaved.
    """
    for other in jobs:
        if other.view.job == job.job:
            return None
        if overlapping(other.view.options.dest, job.options.dest):
            return other.view
    return None


def first_writer(dest: S3Url, jobs: Sequence[ActiveJob]) -> JobView | None:
    """Return the first of the active jobs, oldest first, that a job submitted now to `dest` would wait for."""
    return next((job.view for job in jobs if overlapping(job.view.options.dest, dest)), None)


def unblocked(jobs: Sequence[ActiveJob]) -> list[ActiveJob]:
    """Return the running jobs that wait for no other job; `jobs` are all active jobs, oldest first."""
    return [job for job in jobs if job.view.status is JobStatus.RUNNING and blocker(job.view, jobs) is None]


class Backlog:
    """Works over a `RedisConnection` of the caller."""

    def __init__(self, connection: RedisConnection) -> None:
        """Send nothing yet."""
        self._connection = connection
        self._prefix = connection.prefix

    # -- publishing -----------------------------------------------------------------------------------------------

    def active(self) -> list[ActiveJob]:
        """Return the jobs that have not ended, oldest first; leave out records that this version cannot read."""

        def read() -> list[Any]:
            jobs = self._connection.client.smembers(redis_keys.active(self._prefix))
            pipeline = self._connection.client.pipeline(transaction=False)
            pipeline.time()
            for job in jobs:
                keys = redis_keys.job_keys(self._prefix, job)
                pipeline.hgetall(keys.record)
                pipeline.zcard(keys.outstanding)
                pipeline.bitcount(keys.returned)
                pipeline.xlen(keys.log)
            return cast(list[Any], pipeline.execute())

        (seconds, micros), *answers = self._connection.call(read)
        now = seconds + micros / 1e6
        found = []
        for fields, outstanding, returned, pending in zip(*[iter(answers)] * 4, strict=True):
            try:
                if fields:
                    view = JobView.read(fields)
                    found.append(ActiveJob(view, outstanding, returned, pending, (view.store_retry_at or now) - now))
            except ContractError as error:  # of a newer version: left to processes that can read it
                log.error(error, extra=event("job_record_invalid"))
        return sorted(found, key=lambda job: (job.view.queued_at or job.view.created_at, job.view.job))

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

    # -- lost chunks ----------------------------------------------------------------------------------------------

    def silent(self, job: str, seconds: float) -> list[int]:
        """Return the outstanding chunks of a job without a sign of life for `seconds`."""

        def read() -> list[str]:
            time, micros = self._connection.client.time()
            outstanding = redis_keys.job_keys(self._prefix, job).outstanding
            limit = time + micros / 1e6 - seconds
            return cast(list[str], self._connection.client.zrangebyscore(outstanding, "-inf", limit))

        return [int(chunk) for chunk in self._connection.call(read)]

    def in_broker(self) -> set[str]:
        """Return the task ids of all messages that wait in a queue or are held by a worker. O(window)."""

        def read() -> list[Any]:
            pipeline = self._connection.client.pipeline(transaction=False)
            for name in redis_keys.QUEUES:
                pipeline.lrange(redis_keys.queue(self._prefix, name), 0, -1)
            pipeline.hvals(redis_keys.unacked(self._prefix))
            return cast(list[Any], pipeline.execute())

        *queues, delivered = self._connection.call(read)
        found = [_task(text, held=False) for texts in queues for text in texts]
        found += [_task(text, held=True) for text in delivered]
        return {task for task in found if task is not None}

    def held(self, job: str) -> bool:
        """Return whether a worker holds a message of a job under a lease that has not expired. O(window)."""
        delivered = self._connection.call(lambda: self._connection.client.hvals(redis_keys.unacked(self._prefix)))
        ids = [redis_keys.parse_task_id(_task(text, held=True) or "") for text in delivered]
        return any(id is not None and id[0] == job for id in ids)

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
        """Return the oldest outcomes that are not in S3 yet, at most `count`."""
        key = redis_keys.job_keys(self._prefix, job).log
        entries = self._connection.call(lambda: self._connection.client.xrange(key, count=count))
        return [PendingOutcome(id, fields["o"]) for id, fields in entries]

    def recent(self, job: str, count: int = 1000) -> Iterator[PendingOutcome]:
        """Iterate over the outcomes that are not in S3 yet, newest first, reading `count` at a time.

        Outcomes that are moved to S3 during the iteration may be missing.
        """
        key, before = redis_keys.job_keys(self._prefix, job).log, "+"
        while True:
            entries = self._connection.call(
                functools.partial(self._connection.client.xrevrange, key, before, "-", count)
            )
            yield from (PendingOutcome(id, fields["o"]) for id, fields in entries)
            if len(entries) < count:
                return
            before = f"({entries[-1][0]}"

    def delete_pending(self, job: str, entries: Iterable[PendingOutcome]) -> None:
        """Delete outcomes that are in S3 now."""
        ids = [entry.id for entry in entries]
        self._connection.call(lambda: self._connection.client.xdel(redis_keys.job_keys(self._prefix, job).log, *ids))

    def close(self, job: str, epoch: int, keep_seconds: int, reason: str = "") -> bool:
        """End a job whose lists are in S3; Redis forgets it after `keep_seconds`.

        Args:
            job: id of the job.
            epoch: of its lists.
            keep_seconds: until Redis forgets it.
            reason: why its lists are incomplete; empty: they are complete.

        Returns:
            Whether this call ended it.
        """
        ended = bool(self._connection.run("close", job, epoch, keep_seconds, reason))
        self.deactivate(job)
        return ended

    def deactivate(self, job: str) -> None:
        """Remove a job from the set of active jobs."""
        self._connection.call(lambda: self._connection.client.srem(redis_keys.active(self._prefix), job))


def _task(text: str, *, held: bool) -> str | None:
    """Return the task id of a queued message, or of a held one, which kombu stores with its delivery; None if foreign.

    A foreign message of any content in a queue must not stop the search for lost chunks.
    """
    try:
        message = json.loads(text)
        task = (message[0] if held else message)["headers"]["id"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return task if isinstance(task, str) else None
