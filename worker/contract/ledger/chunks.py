"""What a worker does with a chunk in Redis: start it, record the outcome of each image, release it.

    ledger.start(message, worker) -> ChunkLease -> begin, record, record, ... -> release

The changes are Lua scripts (`lua/*.lua`). All of them are idempotent, so a redelivered message or a repeated call
leaves every count exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

from pydantic import ValidationError

from worker.contract import outcome_codec, redis_keys
from worker.contract.errors import BadMessage, JobUnreadable
from worker.contract.job import WAIT_SHOWN_SECONDS, JobStatus
from worker.contract.ledger.connection import RedisConnection
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy, Outcome, OutcomeKind, read_policy

SPLIT_AFTER = 2
"""Starts of a chunk without progress before its images run one by one."""

MAX_FAILURES = 1000
"""Failures of a job that Redis keeps with their text, to bound its memory. The job's lists in S3 have all of them."""


STORE_PAUSE_SECONDS, MAX_STORE_PAUSE_SECONDS = 5.0, 30.0
"""Time until S3, unavailable for a job, is tried again for it: doubled after each failure, up to the longest."""

STORE_PAUSE_FACTOR, MAX_LONG_STORE_PAUSE_SECONDS = 2.0, 120.0
"""The pause is at least this multiple of the time that the failed try took, up to a limit: a process that waits for a
server which hangs must have more time for other jobs than for that."""


def longest_store_pause() -> float:
    """Return the longest time in seconds until S3 is tried again for a job. A longer one in a record is not ours."""
    return max(MAX_STORE_PAUSE_SECONDS, MAX_LONG_STORE_PAUSE_SECONDS)


_MAX_NOTE = 500
"""Characters of S3's answer in the record of a job."""


class Verdict(StrEnum):
    """What a worker shall do with a chunk."""

    RUN = "run"
    DONE = "done"
    BUSY = "busy"
    """Another worker is running it."""
    PAUSED = "paused"
    WAITING = "waiting"
    """S3 is unavailable for the job; the feeder publishes the chunk when it is time for another try."""
    CANCELLED = "cancelled"
    STALE = "stale"
    """It belongs to an earlier epoch, or to a job that is not running yet."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Recorded:
    """Answer to `ChunkLease.record`."""

    completed: bool
    """This call gave the last image of the job its outcome."""

    proceed: bool
    """The worker shall run further images of the chunk."""


@dataclass(frozen=True)
class ChunkLease:
    """One chunk in the hands of one worker, as `ChunkLedger.start` grants it (verdict `run`) or refuses it."""

    connection: RedisConnection = field(repr=False)
    message: ChunkMessage
    worker: str
    """Name of the process, unique in the fleet."""

    verdict: Verdict
    outcomes: tuple[OutcomeKind | None, ...] = ()
    """The outcome that each image of the chunk already has; empty if the job is unknown or the chunk is stale."""

    options: JobOptions | None = None
    """Options of the job; None if the job is unknown."""

    policy: JobPolicy = field(default_factory=JobPolicy)
    one_by_one: bool = False
    """The chunk has killed workers: run its images one by one and announce each with `begin`."""

    death_reason: str = ""
    """What the parent process saw when the chunk last killed a model process."""

    dead: tuple[int, ...] = ()
    """Positions in the job of images that killed too many workers: record them as dead."""

    starts: int = 0
    """Starts of the chunk, this one included, since its last progress or release; 0: not known."""

    recheck: bool = False
    """The primary of Redis has changed, and may lack outcomes of the job: look for its outputs before making them."""

    silence: float = 60.0
    """Seconds after which a silent chunk counts as lost and is published again."""

    @property
    def started_before(self) -> bool:
        """Whether an earlier start of the chunk ended without a release: the chunk may have killed that worker."""
        return self.starts > 1

    def begin(self, index: int) -> bool:
        """Announce the image that runs next, alone; if the worker dies now, this image is to blame.

        Args:
            index: position of the image in the job.

        Returns:
            False if the chunk now belongs to another worker: this one must stop.
        """
        message = self.message
        return bool(self.connection.run("begin", message.job, message.chunk, message.epoch, self.worker, index))

    def record(self, outcomes: Sequence[Outcome]) -> Recorded:
        """Record outcomes of images of the chunk. Also tells the ledger that the worker is alive."""
        fields: list[object] = []
        for outcome in outcomes:
            line = outcome.model_dump_json(exclude_defaults=True)
            fields += [outcome.index, outcome_codec.NUMBERS[outcome.kind], outcome.code, line]
        args = [*_chunk_args(self.message), MAX_FAILURES, self.worker, self.starts, *fields]
        completed, proceed = self.connection.run("record", self.message.job, *args)
        return Recorded(bool(completed), bool(proceed))

    def store_failure(
        self, answer: str, *, index: int | None = None, tries: int = 0, bucket: str = "", spent: float = 0.0
    ) -> int:
        """Note that the job waits for S3, and count a failure of one image.

        If S3 itself fails, no chunk of the job starts for a while, which grows with each failure until an image of the
        job gets an outcome.

        Args:
            answer: what S3 answered last, for `producer status`.
            index: position in the job of the image for which S3 fails while it serves others; None: S3 itself fails.
            tries: failures after which the image is given up, so that the job no longer waits for it.
            bucket: the one that is unavailable; jobs that use it share the tries.
            spent: seconds that the try took, without the time in which images got outcomes.

        Returns:
            Failures of the image so far; 0 without one, or if the chunk belongs to another worker by now.
        """
        message, image = self.message, "" if index is None else index
        args = [message.chunk, message.epoch, self.worker, answer[:_MAX_NOTE], WAIT_SHOWN_SECONDS, image, tries]
        least = min(MAX_LONG_STORE_PAUSE_SECONDS, STORE_PAUSE_FACTOR * spent)
        args += [bucket, STORE_PAUSE_SECONDS, MAX_STORE_PAUSE_SECONDS, least]
        return int(self.connection.run("store_failure", message.job, *args))

    def release(
        self, *, model: str, core_seconds: float, blameless: bool, retry_after: float = 0.0, give_back: bool = False
    ) -> bool:
        """Give up the chunk, complete or not.

        Args:
            model: name of the model that ran it.
            core_seconds: wall time of the run times the cores of the process.
            blameless: the run ended for a reason outside the chunk (the worker stops, S3 is down): do not count the
                attempt.
            retry_after: seconds until the rest of the chunk is published again; 0: its message goes back to the queue.
            give_back: the feeder publishes the rest of the chunk, when it is time to try S3 again.

        Returns:
            Whether the message must go back to the queue.
        """
        args: list[object] = [*_chunk_args(self.message), self.worker, round(core_seconds, 3), int(blameless), model]
        args += [retry_after, self.silence, int(give_back)]
        return bool(self.connection.run("release", self.message.job, *args))


class ChunkLedger:
    """The chunks of all jobs, over a `RedisConnection` of the caller."""

    def __init__(self, connection: RedisConnection, *, silence_seconds: float = 60.0) -> None:
        """Send nothing yet.

        Args:
            connection: to Redis.
            silence_seconds: time after the last sign of life of a worker during which it still holds its chunk.
        """
        self._connection = connection
        self._silence = silence_seconds

    def start(self, message: ChunkMessage, worker: str) -> ChunkLease:
        """Count an attempt at a chunk, and return what the worker shall do with it.

        Args:
            message: the chunk.
            worker: name of the process, unique in the fleet.

        Raises:
            BadMessage: the job uses options that this version does not know.
            JobUnreadable: a key of the job holds something that maskmill never writes.
        """
        args = [*_chunk_args(message), worker, self._silence, SPLIT_AFTER, longest_store_pause()]
        answer = self._connection.run("start", message.job, *args)
        verdict, states, options, policy, one_by_one, death_reason, dead, starts, *recheck = answer
        try:
            known_options = JobOptions.model_validate_json(options) if options else None
            known_policy = read_policy(policy) if policy else JobPolicy()
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            raise BadMessage(
                f"job {message.job} uses options that this worker does not know ({fields}): upgrade the workers before "
                "the producers; its chunks are published again until a worker can run them"
            ) from error
        if verdict == Verdict.RUN and known_options is None:
            raise JobUnreadable(message.job, "its record has no options")
        if any(state >= len(outcome_codec.KINDS) for state in states):
            raise JobUnreadable(message.job, "the state of an image is none that maskmill writes")
        return ChunkLease(
            connection=self._connection,
            message=message,
            worker=worker,
            verdict=Verdict(verdict),
            outcomes=tuple(outcome_codec.KINDS[state] for state in states),
            options=known_options,
            policy=known_policy,
            one_by_one=bool(one_by_one),
            death_reason=death_reason,
            dead=tuple(dead),
            starts=starts,
            recheck=any(recheck),
            silence=self._silence,
        )

    def options_if_unstarted(self, message: ChunkMessage) -> JobOptions | None:
        """Return the job's options if no worker has started the chunk yet and all of its images have to be done.

        None as well while S3 is unavailable for the job, and if the numbers of the message do not follow from the job;
        `start` then answers `stale`.
        """
        keys = redis_keys.job_keys(self._connection.prefix, message.job)

        def read() -> list[Any]:
            pipeline = self._connection.client.pipeline(transaction=False)
            pipeline.hmget(
                keys.record,
                "status",
                "epoch",
                "options",
                "policy",
                "total",
                "chunk_images",
                "store_retry_at",
                "recheck",
            )
            pipeline.hexists(keys.attempts, str(message.chunk))
            end = (message.start + len(message.keys) - 1) // 2
            pipeline.execute_command("GETRANGE", keys.images, message.start // 2, end, NEVER_DECODE=True)
            return cast(list[Any], pipeline.execute())

        record, attempted, packed = self._connection.call(read)
        if any(outcome_codec.unpacked(packed)[message.start % 2 :][: len(message.keys)]):
            return None  # a second copy of the message of a chunk that is done or was given back
        status, epoch, options, policy, total, size, store_retry_at, recheck = record
        if status != JobStatus.RUNNING or epoch != str(message.epoch) or attempted or store_retry_at or recheck:
            return None
        try:
            first = message.chunk * int(size)
            if (message.start, len(message.keys)) != (first, min(int(size), int(total) - first)):
                return None
            skip_existing = read_policy(policy or "{}").skip_existing
            return None if skip_existing else JobOptions.model_validate_json(options)
        except (ValueError, TypeError):  # of a later version, or damaged: `start` reports it
            return None

    def touch(self, message: ChunkMessage, worker: str) -> bool:
        """Report that a worker still runs a chunk; return False if it is not, or no longer, its own."""
        return bool(self._connection.run("touch", message.job, *_chunk_args(message), worker))

    def record_death(self, message: ChunkMessage, worker: str, reason: str) -> None:
        """Record why a worker's model process died while it ran a chunk; frees the chunk for the next start."""
        self._connection.run("record_death", message.job, message.chunk, worker, reason)


def _chunk_args(message: ChunkMessage) -> list[int]:
    return [message.chunk, message.epoch, message.start, len(message.keys)]
