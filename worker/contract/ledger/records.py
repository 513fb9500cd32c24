"""Read the records of jobs from Redis and check them: the only place that does.

A record may hold anything: other programs, other versions and clients with a producer's password can write it. The
script `lua/read.lua` checks types and sizes before anything leaves Redis, `JobView.read` checks the content, and this
module checks both against each other. What is wrong with a record concerns its job alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from worker.contract import redis_keys
from worker.contract.errors import JobUnreadable
from worker.contract.job import JobView, UnreadableJob
from worker.contract.ledger.connection import RedisConnection

MAX_ACTIVE = 5_000
"""Jobs of an index that are read at once; of more, parts take turns. A job takes about 7 kB of memory."""

_OPTIONS_BYTES = 8 * 1024 * 1024
"""Memory for the options of all these jobs, which have 0.5 kB as a rule, and 15 kB with the longest names."""

_MAX_FIELDS = 200
_MAX_BYTES = 24 * 1024
"""Size of a record in the memory of Redis. The longest names and reasons have 19 kB together."""

_MAX_FOREIGN = 100
"""Members of the set of published chunks that may be no chunks; `lua/silent.lua` removes them."""

_BATCH = 200
"""Records in one pipeline of commands: at most 5 MB."""


@dataclass(frozen=True)
class JobRecord:
    """The record of one job, and the sizes of its other keys."""

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


class Rotation:
    """Takes turns over the jobs of an index that may be too large to be read at once.

    Each look continues where the previous one ended, so that a round of them reaches every job that is in the index all
    the time, whatever is added and removed meanwhile. An index that fits is read as a whole by each look.
    """

    def __init__(self, connection: RedisConnection, index: str) -> None:
        """Read nothing yet; `index` is the key of a set."""
        self._connection, self._index = connection, index
        self._cursor, self._left = "0", list[str]()
        self._next = self._cursor, self._left
        self.ends_round = True
        """Whether the last look reached the last jobs of a round."""

        self.whole = True
        """Whether the last look was a round of its own: it reached all jobs."""

    def names(self, most: int) -> list[str]:
        """Begin a look, and return the names of up to `most` jobs; without `end`, the next look begins here again."""
        script, args = self._connection.script("members"), [most, self._cursor, *self._left]
        cursor, names = self._connection.call(lambda: script(keys=[self._index], args=args))
        self._next = cursor, list(dict.fromkeys(names))
        return self._next[1][:most]

    def end(self, reached: int) -> None:
        """End a look that reached the first `reached` of the names; the others come first in the next one."""
        begins_round = self._begins_round
        self._cursor, names = self._next
        self._left = names[reached:]
        self.ends_round = self._begins_round
        self.whole = begins_round and self.ends_round

    @property
    def _begins_round(self) -> bool:
        return self._cursor == "0" and not self._left


class Records:
    """Works over a `RedisConnection` of the caller."""

    def __init__(self, connection: RedisConnection) -> None:
        """Send nothing yet."""
        self._connection = connection
        self._prefix = connection.prefix
        self.rotation = Rotation(connection, redis_keys.active(self._prefix))
        """Of `active`."""

        self._unreadable = Rotation(connection, redis_keys.unreadable(self._prefix))

    def read(self, job: str) -> JobRecord | None:
        """Read one job with a single command, whatever its size; None if Redis does not know it.

        Raises:
            JobUnreadable: it has a record that cannot be read.
        """
        found = self.read_all([job])[0]
        if isinstance(found, UnreadableJob):
            raise JobUnreadable(found.job, found.reason)
        return found

    def read_all(self, jobs: Sequence[str]) -> list[JobRecord | UnreadableJob | None]:
        """Read several jobs, in their order; None for a job that Redis does not know."""
        found: list[JobRecord | UnreadableJob | None] = []
        for start in range(0, len(jobs), _BATCH):
            batch = jobs[start : start + _BATCH]
            found += map(_checked, batch, self._answers(batch))
        return found

    def active(self) -> tuple[list[JobRecord], list[UnreadableJob], list[str]]:
        """Read all jobs of the index of active jobs; the next part of them if they exceed the bounds above.

        Returns:
            The jobs, without texts for people; those that cannot be read; and the names without a record.
        """
        found: list[JobRecord] = []
        unreadable: list[UnreadableJob] = []
        unknown: list[str] = []
        names, room, reached = self.rotation.names(MAX_ACTIVE), _OPTIONS_BYTES, 0
        while reached < len(names) and room >= 0:
            batch = names[reached : reached + _BATCH]
            reached += len(batch)
            for name, record in zip(batch, self.read_all(batch), strict=True):
                if record is None:
                    unknown.append(name)
                elif isinstance(record, UnreadableJob):
                    unreadable.append(record)
                else:
                    found.append(replace(record, view=record.view.without_texts()))
                    room -= _options_bytes(record.view)
        self.rotation.end(reached)
        return found, unreadable, unknown

    def readable_again(self, most: int) -> tuple[list[str], list[str]]:
        """Look at the next `most` of the jobs that were put aside because they could not be read.

        Returns:
            Those that are no longer unreadable; and those of them that have a record, and can be read.
        """
        gone, again = [], []
        names = self._unreadable.names(most)
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            for name, record in zip(batch, self.read_all(batch), strict=True):
                if not isinstance(record, UnreadableJob):
                    gone.append(name)
                if isinstance(record, JobRecord):
                    again.append(name)
        self._unreadable.end(len(names))
        return gone, again

    def newest(self, limit: int) -> list[JobView | UnreadableJob]:
        """Read the newest jobs, newest first."""
        index = redis_keys.jobs(self._prefix)
        names = self._connection.call(lambda: self._connection.script("newest")(keys=[index], args=[limit]))
        found = self.read_all(names)
        return [each.view if isinstance(each, JobRecord) else each for each in found if each is not None]

    def _answers(self, jobs: Sequence[str]) -> list[Any]:
        script = self._connection.script("read")

        def read() -> list[Any]:
            pipeline = self._connection.client.pipeline(transaction=False)
            for job in jobs:
                script(keys=redis_keys.job_keys(self._prefix, job), args=[_MAX_FIELDS, _MAX_BYTES], client=pipeline)
            return cast(list[Any], pipeline.execute())

        return cast(list[Any], self._connection.call(read))


def _options_bytes(view: JobView) -> int:
    """Return the memory that the long texts of a job take."""
    options = view.options
    texts = (options.source.key, options.dest.key, options.background, options.background_etag, options.name)
    return sum(map(sys.getsizeof, texts))


def _checked(job: str, answer: list[Any]) -> JobRecord | UnreadableJob | None:
    if not answer:
        return None
    reason = answer[0]
    if reason:
        return UnreadableJob(job, reason)
    images, returned_bytes, outstanding, returned, pending, now = answer[1:7]
    fields = answer[7:]
    try:
        view = JobView.read(dict(zip(fields[::2], fields[1::2], strict=True)), job)
        _check_sizes(view, images=images, returned_bytes=returned_bytes, outstanding=outstanding)
    except JobUnreadable as error:
        return UnreadableJob(job, error.reason)
    return JobRecord(view, outstanding, returned, pending, (view.store_retry_at or float(now)) - float(now))


def _check_sizes(view: JobView, *, images: int, returned_bytes: int, outstanding: int) -> None:
    """Check that what is stored for images and chunks is no more than the job has.

    Raises:
        JobUnreadable: it is more.
    """
    total = view.total or 0
    if images > (total + 1) // 2:
        raise JobUnreadable(view.job, f"it has states of {2 * images} images, and {total} images")
    if returned_bytes > view.chunks // 8 + 1 or outstanding > view.chunks + _MAX_FOREIGN:
        raise JobUnreadable(view.job, f"it has more chunks to publish or published than its {view.chunks}")


def deactivate(connection: RedisConnection, job: str) -> None:
    """Remove a job from the set of active jobs, if Redis knows that it has ended."""
    keys = [redis_keys.job(connection.prefix, job), redis_keys.active(connection.prefix)]
    connection.call(lambda: connection.script("deactivate")(keys=keys, args=[job]))
