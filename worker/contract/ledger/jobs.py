"""The ledger: what becomes of every image of every job, in Redis. What the producer and the workers do with one job.

The changes that must not tear are Lua scripts (`lua/*.lua`), idempotent, so a redelivered or repeated call leaves
every count exact, and every call may be repeated after a lost connection. `backlog` is the same for those who keep
all jobs moving.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, cast

from pydantic import ValidationError

from worker.contract import outcome_codec, redis_keys
from worker.contract.errors import BadMessage, JobNotFound, JobStateError
from worker.contract.job import ENDED, JobStatus, JobView
from worker.contract.ledger.connection import RedisLink
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy, Outcome, OutcomeKind
from worker.contract.settings import RedisSettings

SPLIT_AFTER = 2
"""Starts of a chunk without progress before its images are run one by one."""

MAX_FAILURES = 1000
"""Failures kept with their text in Redis per job; bounds its memory. All of them are in the job's lists in S3."""

_RESET_BATCH = 500
_SCAN_BYTES = 64 * 1024

_OVER = "it has ended, `producer retry {job}` runs images of it again"
_REMEDIES = dict.fromkeys(JobStatus, "see `producer status {job}`") | {
    JobStatus.LISTING: "its images are still being listed",
    JobStatus.STOPPING: "it is told to stop, `producer watch {job}` stays until it has",
    JobStatus.CLOSING: "its lists are being written, it ends in a moment",
    JobStatus.REOPENING: "a retry of it was interrupted, run `producer retry {job}` again",
    **dict.fromkeys(ENDED, _OVER),
}
"""What to do about a job that is in another state than was thought."""


class Verdict(StrEnum):
    """What `start` tells a worker to do with a chunk."""

    RUN = "run"
    DONE = "done"
    BUSY = "busy"
    """Another worker is running it right now."""
    PAUSED = "paused"
    CANCELLED = "cancelled"
    STALE = "stale"
    """Of an earlier epoch, or of a job that is not running yet."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Start:
    """Answer to `start`."""

    verdict: Verdict
    outcomes: tuple[OutcomeKind | None, ...] = ()
    """For each image of the chunk the outcome it already has; empty for a job that is unknown or stale."""

    options: JobOptions | None = None
    """What the job asks of every image; None for an unknown job."""

    policy: JobPolicy = field(default_factory=JobPolicy)
    careful: bool = False
    """Its images are to be run one by one, each announced with `begin`: it killed its worker before."""

    why: str = ""
    """What a parent process saw when the chunk last killed its child."""

    bury: tuple[int, ...] = ()
    """Images (positions in the job) that killed their worker too often: they are dead."""


@dataclass(frozen=True)
class Recorded:
    """Answer to `record`."""

    completed: bool
    """This call gave the last image of the job its outcome."""

    go_on: bool
    """Further images of the chunk are wanted."""


class Ledger:
    """All jobs of one installation. Thread-safe; make one per process, after any fork."""

    def __init__(
        self,
        settings: RedisSettings,
        *,
        retries: int = 2,
        client_name: str = "maskmill-ledger",
        silence_seconds: float = 60.0,
    ) -> None:
        """Connect lazily: nothing is sent before the first call.

        Args:
            settings: where Redis is.
            retries: of a call that finds no Redis: few for a person who waits, more for a worker that should sit out
                a restart.
            client_name: how the connections call themselves in `CLIENT LIST`.
            silence_seconds: for so long after its last sign of life a chunk counts as being run by its worker.
        """
        self.link = RedisLink(settings, retries=retries, client_name=client_name)
        self._prefix = settings.prefix
        self._silence = silence_seconds

    # -- producer -------------------------------------------------------------------------------------------------

    def claim(self, key: str, job: str) -> str:
        """Reserve a job key; the id of the job that has it, which is `job` if nobody had it before."""
        name = redis_keys.job_key(self._prefix, key)

        def reserve() -> str:
            self.link.client.set(name, job, nx=True)
            return cast(str, self.link.client.get(name))

        return cast(str, self.link.call(reserve))

    def holder(self, key: str) -> str | None:
        """The job that has a job key."""
        name = redis_keys.job_key(self._prefix, key)
        return cast("str | None", self.link.call(lambda: self.link.client.get(name)))

    def reclaim(self, key: str, job: str) -> None:
        """Give a job key to another job, since the one that had it came to nothing."""
        self.link.call(lambda: self.link.client.set(redis_keys.job_key(self._prefix, key), job))

    def create(self, job: str, options: JobOptions, policy: JobPolicy | None = None, *, traceparent: str = "") -> None:
        """Open a job in state `listing`; `traceparent` is of the span that submits it."""
        now = self._now()
        fields = _asked(job, options, policy or JobPolicy()) | {
            "status": JobStatus.LISTING.value,
            "epoch": 0,
            "created_at": now,
            "queued_at": now,
            "beat_at": now,
            **({"traceparent": traceparent} if traceparent else {}),
        }

        def write() -> None:
            pipeline = self.link.client.pipeline(transaction=True)  # a new one each time: a failed one forgets
            pipeline.hset(redis_keys.job(self._prefix, job), mapping=fields)
            pipeline.zadd(redis_keys.jobs(self._prefix), {job: now})
            pipeline.sadd(redis_keys.active(self._prefix), job)
            pipeline.execute()

        self.link.call(write)

    def beat(self, job: str) -> None:
        """Tell that a job is still being listed."""
        self.link.run("beat", job)

    def seal(self, job: str, *, total: int, chunk_images: int, size: int) -> bool:
        """End listing: the totals are known and the job runs. False when it is not being listed any more."""
        return bool(self.link.run("seal", job, total, -(-total // chunk_images), chunk_images, size))

    def forget(self, job: str) -> None:
        """Remove every trace of a job that has no images."""

        def write() -> None:
            pipeline = self.link.client.pipeline(transaction=True)
            pipeline.delete(*redis_keys.job_keys(self._prefix, job))
            pipeline.zrem(redis_keys.jobs(self._prefix), job)
            pipeline.srem(redis_keys.active(self._prefix), job)
            pipeline.execute()

        self.link.call(write)

    def abandon(self, job: str, reason: str) -> None:
        """End a job that could not be submitted; one that is forgotten already stays so, one that runs is cancelled."""
        status, _ = self.link.run("control", job, "cancel", reason)
        if status == JobStatus.CANCELLED:
            self._inactive(job)

    def abandon_silent(self, job: str, silence_seconds: float, reason: str) -> bool:
        """End a job whose producer was not heard of for so long while listing it; whether this call did."""
        status, changed = self.link.run("control", job, "abandon", reason, silence_seconds)
        if status == JobStatus.CANCELLED:
            self._inactive(job)
        return bool(changed)

    def cancel(self, job: str, reason: str = "cancelled by hand") -> JobView:
        """Stop a job: images in work are finished, no further one begins. Again: nothing more happens.

        Raises:
            JobNotFound: unknown to this Redis.
            JobStateError: it has ended otherwise.
        """
        status = self._control(job, "cancel", reason)
        if status is JobStatus.CANCELLED:
            self._inactive(job)
        return self._expected(job, {JobStatus.STOPPING, JobStatus.CLOSING, JobStatus.CANCELLED}, "cancelled")

    def pause(self, job: str) -> JobView:
        """Begin no further image until `resume`.

        Raises:
            JobNotFound, JobStateError: as in `cancel`.
        """
        self._control(job, "pause")
        return self._expected(job, {JobStatus.PAUSED}, "paused")

    def resume(self, job: str) -> JobView:
        """Go on with a paused job.

        Raises:
            JobNotFound, JobStateError: as in `cancel`.
        """
        self._control(job, "resume")
        return self._expected(job, {JobStatus.RUNNING}, "resumed")

    def reopen(self, job: str, *, failed: bool, cancelled: bool) -> JobView:
        """Run images of an ended job again. Interrupted, it can be called again.

        Args:
            job: its id.
            failed: those that failed or are dead.
            cancelled: those without an outcome because the job was cancelled or stopped.

        Raises:
            JobNotFound, JobStateError: as in `cancel`.
        """
        before = self.view(job)
        if self.link.run("reopen", job, int(failed)) is None:
            raise JobStateError(
                f"job {job} is {before.status.value}: only one that was submitted and has ended can be run again "
                f"(`producer watch {job}` stays until then)"
            )
        self.link.call(lambda: self.link.client.sadd(redis_keys.active(self._prefix), job))
        wanted = ({OutcomeKind.FAILED, OutcomeKind.DEAD} if failed else set()) | (
            {None, OutcomeKind.CANCELLED} if cancelled else set()
        )
        chunks = outcome_codec.chunks_with(self.pieces(job, before.total or 0), wanted, before.chunk_images)
        while batch := list(itertools.islice(chunks, _RESET_BATCH)):
            self._reset(before, batch, failed=failed, cancelled=cancelled)
        self.link.run("resume", job)
        return self.view(job)

    def restore(
        self,
        job: str,
        options: JobOptions,
        policy: JobPolicy,
        *,
        fields: Mapping[str, object],
        counts: Mapping[OutcomeKind, int],
        outcomes: bytes,
        ending: JobStatus | None,
    ) -> JobView:
        """Put back a job that Redis has lost; it runs if `ending` is None and images are left to do.

        Args:
            job: its id, unknown to this Redis.
            options: as submitted.
            policy: as submitted.
            fields: of its hash: epoch, total, bytes, chunk_images, times.
            counts: images by outcome.
            outcomes: state of each image, one byte each, see `states`.
            ending: how it had ended.
        """
        keys, now = redis_keys.job_keys(self._prefix, job), self._now()
        size, total = int(str(fields["chunk_images"])), int(str(fields["total"]))
        chunks, left = -(-total // size), total - sum(counts.values())
        status = ending or (JobStatus.RUNNING if left else JobStatus.CLOSING)
        # As far as there are outcomes, chunks without one are given out again one by one, and from there on in order.
        touched = -(-len(outcomes.rstrip(b"\0")) // size) if status is JobStatus.RUNNING else chunks
        record = (
            _asked(job, options, policy)
            | {"queued_at": now, "chunks": chunks, "cursor": touched, "status": status.value}
            | {"ending": ending.value if ending else "" if left else "finished"}
            | ({"finished_at": now} if ending else {})
            | {kind.value: count for kind, count in counts.items() if count}
            | dict(fields)
        )

        def images() -> None:
            pipeline = self.link.client.pipeline(transaction=True)
            pipeline.delete(*keys)
            pipeline.set(keys.images, outcome_codec.packed(outcomes))
            pipeline.execute()

        def publish() -> None:
            pipeline = self.link.client.pipeline(transaction=True)
            pipeline.hset(keys.record, mapping=record)
            pipeline.zadd(redis_keys.jobs(self._prefix), {job: float(str(fields["created_at"]))})
            if ending is None:
                pipeline.sadd(redis_keys.active(self._prefix), job)
            pipeline.execute()

        self.link.call(images)
        if status is JobStatus.RUNNING:
            unfinished = outcome_codec.chunks_with([outcomes[: touched * size]], {None}, size)
            while batch := list(itertools.islice(unfinished, _RESET_BATCH)):
                self._add_returned(keys.returned, batch)
        self.link.call(publish)  # last: without its record there is no job, and whoever was interrupted begins anew
        return self.view(job)

    def _add_returned(self, returned: str, chunks: list[int]) -> None:
        def write() -> None:
            pipeline = self.link.client.pipeline(transaction=False)
            for chunk in chunks:
                pipeline.setbit(returned, chunk, 1)
            pipeline.execute()

        self.link.call(write)

    def _reset(self, view: JobView, chunks: list[int], *, failed: bool, cancelled: bool) -> None:
        script, keys = self.link.script("reset"), redis_keys.job_keys(self._prefix, view.job)

        def write() -> None:
            pipeline = self.link.client.pipeline(transaction=False)
            for chunk in chunks:
                first = chunk * view.chunk_images
                count = min(view.chunk_images, (view.total or 0) - first)
                script(keys=keys, args=[chunk, first, count, int(failed), int(cancelled)], client=pipeline)
            pipeline.execute()

        self.link.call(write)

    def _inactive(self, job: str) -> None:
        self.link.call(lambda: self.link.client.srem(redis_keys.active(self._prefix), job))

    def _now(self) -> float:
        """The server's time: jobs of producers whose clocks differ have an order all the same."""
        seconds, micros = self.link.call(self.link.client.time)
        return float(seconds) + float(micros) / 1e6

    def _control(self, job: str, action: str, reason: str = "") -> JobStatus:
        status, _ = self.link.run("control", job, action, reason)
        if not status:
            raise self._not_found(job)
        return JobStatus(status)

    def _expected(self, job: str, statuses: set[JobStatus], what: str) -> JobView:
        view = self.view(job)
        if view.status not in statuses:
            now = view.status.value
            raise JobStateError(f"job {job} is {now} and can't be {what}: {_REMEDIES[view.status].format(job=job)}")
        return view

    # -- worker ---------------------------------------------------------------------------------------------------

    def start(self, message: ChunkMessage, worker: str) -> Start:
        """Count an attempt at a chunk and learn what to do with it.

        Args:
            message: the chunk.
            worker: name of the process, unique in the fleet.

        Raises:
            BadMessage: the job asks for something that this version does not know.
        """
        args = [*_place(message), worker, self._silence, SPLIT_AFTER]
        verdict, known, options, policy, careful, why, buried = self.link.run("start", message.job, *args)
        try:
            asked = JobOptions.model_validate_json(options) if options else None
            how = JobPolicy.model_validate_json(policy) if policy else JobPolicy()
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            raise BadMessage(
                f"job {message.job} asks for what this worker does not know ({fields}): upgrade the workers before the "
                "producers; its chunks are published again until one can run them"
            ) from error
        return Start(
            Verdict(verdict),
            tuple(outcome_codec.KINDS[state] for state in known),
            asked,
            how,
            bool(careful),
            why,
            tuple(buried),
        )

    def fresh(self, message: ChunkMessage) -> JobOptions | None:
        """What is asked of the images of a chunk that nobody has started yet, if all of them are to be done."""
        keys = redis_keys.job_keys(self._prefix, message.job)

        def read() -> list[Any]:
            pipeline = self.link.client.pipeline(transaction=False)
            pipeline.hmget(keys.record, "status", "epoch", "options", "policy")
            pipeline.hexists(keys.attempts, str(message.chunk))
            return cast(list[Any], pipeline.execute())

        (status, epoch, options, policy), attempted = self.link.call(read)
        if status != JobStatus.RUNNING or epoch != str(message.epoch) or attempted:
            return None
        try:
            again = JobPolicy.model_validate_json(policy or "{}").skip_existing
            return None if again else JobOptions.model_validate_json(options)
        except ValidationError:  # of a later version: `start` says so
            return None

    def begin(self, message: ChunkMessage, worker: str, index: int) -> bool:
        """Announce the image of a careful chunk that is run next, alone.

        Returns:
            False when the chunk is not this worker's any more: it must not go on.
        """
        return bool(self.link.run("begin", message.job, message.chunk, message.epoch, worker, index))

    def record(self, message: ChunkMessage, outcomes: Sequence[Outcome], worker: str = "") -> Recorded:
        """Write outcomes of images of a chunk; also the sign that the chunk is alive.

        Args:
            message: the chunk.
            outcomes: of its images.
            worker: who ran them. Told not to go on when the chunk has been given to another; empty: never told.
        """
        fields: list[object] = []
        for outcome in outcomes:
            line = outcome.model_dump_json(exclude_defaults=True)
            fields += [outcome.index, outcome_codec.NUMBERS[outcome.kind], outcome.code, line]
        completed, go_on = self.link.run("record", message.job, *_place(message), MAX_FAILURES, worker, *fields)
        return Recorded(bool(completed), bool(go_on))

    def release(self, message: ChunkMessage, worker: str, *, model: str, core_seconds: float, blameless: bool) -> bool:
        """Let go of a chunk, whole or not.

        Args:
            message: the chunk.
            worker: who ran it.
            model: what ran it.
            core_seconds: wall time of the run times the cores of the process.
            blameless: it was stopped by nobody's fault (the worker ends, S3 is down): the attempt is not counted.

        Returns:
            Whether the message shall go back to the queue.
        """
        args = [*_place(message), worker, round(core_seconds, 3), int(blameless), model]
        return bool(self.link.run("release", message.job, *args))

    def died(self, message: ChunkMessage, worker: str, why: str) -> None:
        """Note what became of a worker's child while it ran a chunk."""
        self.link.run("died", message.job, message.chunk, worker, why)

    # -- both -----------------------------------------------------------------------------------------------------

    def view(self, job: str) -> JobView:
        """One job, in one read whatever its size.

        Raises:
            JobNotFound: unknown to this Redis.
        """
        fields = self.link.call(lambda: self.link.client.hgetall(redis_keys.job(self._prefix, job)))
        if not fields:
            raise self._not_found(job)
        return JobView.read(fields)

    def jobs(self, limit: int) -> list[JobView]:
        """The newest jobs, newest first."""

        def read() -> list[dict[str, str]]:
            pipeline = self.link.client.pipeline(transaction=False)
            for job in self.link.client.zrevrange(redis_keys.jobs(self._prefix), 0, limit - 1):
                pipeline.hgetall(redis_keys.job(self._prefix, job))
            return cast(list[dict[str, str]], pipeline.execute())

        return [JobView.read(fields) for fields in self.link.call(read) if fields]

    def failures(self, job: str) -> list[dict[str, str]]:
        """The first failures of a job (at most `MAX_FAILURES`): kind, key, code, message."""
        name = redis_keys.job_keys(self._prefix, job).failures
        lines = self.link.call(lambda: self.link.client.lrange(name, 0, -1))
        return [
            {field: str(entry.get(field, "")) for field in ("kind", "key", "code", "message")}
            for entry in map(json.loads, lines)
        ]

    def outcomes(self, job: str, first: int, count: int) -> list[OutcomeKind | None]:
        """Outcomes of images `first` to `first + count - 1`; None for those without one."""
        if count <= 0:
            return []
        fields = [part for index in range(first, first + count) for part in ("GET", "u4", f"#{index}")]
        key = redis_keys.job_keys(self._prefix, job).images
        found = self.link.call(lambda: self.link.client.execute_command("BITFIELD_RO", key, *fields))
        return [outcome_codec.KINDS[state] for state in found]

    def states(self, job: str, total: int) -> Iterator[OutcomeKind | None]:
        """Outcomes of all images in order, read in pieces of 128 thousand."""
        for piece in self.pieces(job, total):
            yield from map(outcome_codec.KINDS.__getitem__, piece)

    def pieces(self, job: str, total: int) -> Iterator[bytes]:
        """The same as numbers (`states.NUMBERS`), one byte per image, piece by piece."""
        for start in range(0, (total + 1) // 2, _SCAN_BYTES):
            yield outcome_codec.unpacked(self._piece(job, start))[: total - 2 * start]

    def _piece(self, job: str, start: int) -> bytes:
        key = redis_keys.job_keys(self._prefix, job).images
        end = start + _SCAN_BYTES - 1
        piece: bytes = self.link.call(
            lambda: self.link.client.execute_command("GETRANGE", key, start, end, NEVER_DECODE=True)
        )
        return piece.ljust(_SCAN_BYTES, b"\0")  # images without an outcome at the end take no room

    def close(self) -> None:
        """Close all connections."""
        self.link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _not_found(self, job: str) -> JobNotFound:
        return JobNotFound(f"no job {job!r} at {self.link.url}; `producer list` shows those there are")


def _place(message: ChunkMessage) -> list[int]:
    return [message.chunk, message.epoch, message.start, len(message.keys)]


def _asked(job: str, options: JobOptions, policy: JobPolicy) -> dict[str, object]:
    """What the record of a job says of what was asked."""
    limits = {"max_failed": policy.max_failed, "max_failed_percent": policy.max_failed_percent}
    return {
        "job": job,
        "options": options.model_dump_json(),
        "policy": policy.model_dump_json(),
        "max_attempts": policy.max_attempts,
    } | {name: limit for name, limit in limits.items() if limit is not None}
