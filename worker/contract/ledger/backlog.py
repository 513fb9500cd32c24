"""All jobs that have not ended, for those who keep them moving: what to publish, what is missing, what to note."""

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
from worker.contract.ledger.connection import RedisLink
from worker.contract.log_fields import event

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActiveJob:
    """One job and how much of it is on its way."""

    view: JobView
    outstanding: int
    """Chunks published and not finished."""

    returned: int
    """Chunks to publish before the cursor goes on."""

    logged: int
    """Outcomes that are not in S3 yet."""

    @property
    def waiting(self) -> int:
        """Chunks still to be published."""
        return self.returned + max(0, self.view.chunks - self.view.cursor)


@dataclass(frozen=True)
class LogEntry:
    """One outcome that is not in S3 yet."""

    id: str
    """`milliseconds-number`, by the clock of Redis."""

    line: str
    """An `Outcome` as JSON."""

    @property
    def dated(self) -> str:
        """The same with its time; spliced in, since there may be millions."""
        return f'{{"at":{int(self.id.partition("-")[0]) / 1000},{self.line[1:]}'


def overlapping(first: JobView, second: JobView) -> bool:
    """Whether two jobs might write the same outputs: one destination lies in the other."""
    one, two = first.options.dest, second.options.dest
    return one.bucket == two.bucket and (one.key.startswith(two.key) or two.key.startswith(one.key))


def blocker(job: JobView, jobs: Sequence[ActiveJob]) -> JobView | None:
    """The first of the active jobs, oldest first, that `job` must wait for.

    Two jobs that might write the same outputs run one after the other, never interleaved.
    """
    for other in jobs:
        if other.view.job == job.job:
            return None
        if overlapping(other.view, job):
            return other.view
    return None


def unblocked(jobs: Sequence[ActiveJob]) -> list[ActiveJob]:
    """Running jobs that wait for no other; `jobs` are all active ones, oldest first."""
    return [job for job in jobs if job.view.status is JobStatus.RUNNING and blocker(job.view, jobs) is None]


class Backlog:
    """Over a `RedisLink` of the caller's."""

    def __init__(self, link: RedisLink) -> None:
        """Nothing is sent yet."""
        self._link = link
        self._prefix = link.prefix

    # -- publishing -----------------------------------------------------------------------------------------------

    def active(self) -> list[ActiveJob]:
        """Jobs that have not ended, oldest first."""

        def read() -> list[Any]:
            jobs = self._link.client.smembers(redis_keys.active(self._prefix))
            pipeline = self._link.client.pipeline(transaction=False)
            for job in jobs:
                keys = redis_keys.job_keys(self._prefix, job)
                pipeline.hgetall(keys.record)
                pipeline.zcard(keys.outstanding)
                pipeline.bitcount(keys.returned)
                pipeline.xlen(keys.log)
            return cast(list[Any], pipeline.execute())

        answers = self._link.call(read)
        found = []
        for fields, outstanding, returned, logged in zip(*[iter(answers)] * 4, strict=True):
            try:
                found += [ActiveJob(JobView.read(fields), outstanding, returned, logged)] if fields else []
            except ContractError as error:  # of a newer version: left to those who can read it
                log.error(error, extra=event("job_record_invalid"))
        return sorted(found, key=lambda job: (job.view.queued_at or job.view.created_at, job.view.job))

    def queued(self) -> int:
        """Chunk messages waiting in the broker."""

        def read() -> int:
            pipeline = self._link.client.pipeline(transaction=False)
            for name in redis_keys.QUEUES:
                pipeline.llen(redis_keys.queue(self._prefix, name))
            return sum(pipeline.execute())

        return cast(int, self._link.call(read))

    def take(self, job: str, chunks: int, *, epoch: int) -> list[int]:
        """Up to so many chunks of a running job that are to be published now; they count as outstanding already.

        None when the job has another epoch by now: messages of this one would be stale.
        """
        return [int(chunk) for chunk in self._link.run("take", job, chunks, epoch)]

    def untake(self, job: str, chunks: Sequence[int], *, epoch: int) -> None:
        """Chunks that were taken could not be published: they wait again."""
        self._link.run("untake", job, epoch, *chunks)

    # -- what went missing ----------------------------------------------------------------------------------------

    def silent(self, job: str, seconds: float) -> list[int]:
        """Chunks of a job that nobody has heard of for so long."""

        def read() -> list[str]:
            time, micros = self._link.client.time()
            outstanding = redis_keys.job_keys(self._prefix, job).outstanding
            limit = time + micros / 1e6 - seconds
            return cast(list[str], self._link.client.zrangebyscore(outstanding, "-inf", limit))

        return [int(chunk) for chunk in self._link.call(read)]

    def in_broker(self) -> set[str]:
        """Task ids of all messages that wait in a queue or are with a worker. O(window)."""

        def read() -> list[Any]:
            pipeline = self._link.client.pipeline(transaction=False)
            for name in redis_keys.QUEUES:
                pipeline.lrange(redis_keys.queue(self._prefix, name), 0, -1)
            pipeline.hvals(redis_keys.unacked(self._prefix))
            return cast(list[Any], pipeline.execute())

        *queues, delivered = self._link.call(read)
        found = [_task(text, held=False) for texts in queues for text in texts]
        found += [_task(text, held=True) for text in delivered]
        return {task for task in found if task is not None}

    def held(self, job: str) -> bool:
        """Whether a worker has a message of a job in its hands, and its lease has not run out. O(window)."""
        delivered = self._link.call(lambda: self._link.client.hvals(redis_keys.unacked(self._prefix)))
        ids = [redis_keys.parse_task_id(_task(text, held=True) or "") for text in delivered]
        return any(id is not None and id[0] == job for id in ids)

    def reclaim(self, job: str, chunks: Sequence[int], seconds: float) -> list[int]:
        """Of these chunks, those to publish again; they count as heard of from now on."""
        return [int(chunk) for chunk in self._link.run("reclaim", job, seconds, *chunks)]

    # -- endings --------------------------------------------------------------------------------------------------

    def settle(self, job: str, seconds: float) -> bool:
        """Close a job that was told to stop, if nobody works on it any more; a worker silent for so long is gone."""
        return bool(self._link.run("settle", job, seconds))

    def log(self, job: str, count: int) -> list[LogEntry]:
        """The oldest outcomes that are not in S3 yet."""
        key = redis_keys.job_keys(self._prefix, job).log
        entries = self._link.call(lambda: self._link.client.xrange(key, count=count))
        return [LogEntry(id, fields["o"]) for id, fields in entries]

    def recent(self, job: str, count: int = 1000) -> Iterator[LogEntry]:
        """Outcomes that are not in S3 yet, newest first; those brought there meanwhile may be left out."""
        key, before = redis_keys.job_keys(self._prefix, job).log, "+"
        while True:
            entries = self._link.call(functools.partial(self._link.client.xrevrange, key, before, "-", count))
            yield from (LogEntry(id, fields["o"]) for id, fields in entries)
            if len(entries) < count:
                return
            before = f"({entries[-1][0]}"

    def logged(self, job: str, entries: Iterable[LogEntry]) -> None:
        """Forget outcomes that are in S3 now."""
        ids = [entry.id for entry in entries]
        self._link.call(lambda: self._link.client.xdel(redis_keys.job_keys(self._prefix, job).log, *ids))

    def close(self, job: str, epoch: int, keep_seconds: int) -> bool:
        """End a job whose lists are in S3. Redis forgets it after a while."""
        ended = bool(self._link.run("close", job, epoch, keep_seconds))
        self.drop(job)
        return ended

    def drop(self, job: str) -> None:
        """Look at a job no more."""
        self._link.call(lambda: self._link.client.srem(redis_keys.active(self._prefix), job))


def _task(text: str, *, held: bool) -> str | None:
    """Task id of a message in a queue or, with its way of delivery, in a worker's hands; None if it is not ours.

    Whatever somebody put into a queue must not end who looks for lost chunks.
    """
    try:
        message = json.loads(text)
        task = (message[0] if held else message)["headers"]["id"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return task if isinstance(task, str) else None
