"""What the producer and all readers do with a job in Redis: create, control, restore and read it.

Changes that must be atomic are Lua scripts (`lua/*.lua`). All calls are idempotent, so each may be repeated after a
lost connection. `chunks` holds what a worker does with a chunk, `backlog` what the steward does with all jobs.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self, cast

from worker.contract import outcome_codec, redis_keys
from worker.contract.errors import ContractError, JobNotFound, JobStateError, JobUnreadable, RecordDamaged
from worker.contract.job import ENDED, MAX_IMAGES, JobStatus, JobView, UnreadableJob, is_job_id, shortened
from worker.contract.ledger.chunks import MAX_FAILURES
from worker.contract.ledger.connection import RedisConnection
from worker.contract.ledger.records import Records, deactivate
from worker.contract.messages import JobOptions, JobPolicy, Outcome, OutcomeKind
from worker.contract.settings import RedisSettings

_BATCH_CHUNKS = 500
"""Chunks in one pipeline of commands."""

_BLOCK_BYTES = 64 * 1024
"""Length of one read of the packed outcomes: two images per byte."""

_REMEDIES = dict.fromkeys(JobStatus, "see `producer status {job}`") | {
    JobStatus.LISTING: "its images are still being listed",
    JobStatus.STOPPING: "it is stopping; `producer watch {job}` waits until it has stopped",
    JobStatus.CLOSING: "its result lists are being written; it ends in a moment",
    JobStatus.REOPENING: "a retry of it was interrupted; run `producer retry {job}` again",
    **dict.fromkeys(ENDED, "it has ended; `producer retry {job}` runs images of it again"),
}
"""What a user can do when a job is in a state that does not allow the request."""


class Ledger:
    """All jobs of one installation. Thread-safe; create one per process, after any fork."""

    def __init__(
        self,
        settings: RedisSettings,
        *,
        retries: int = 2,
        client_name: str = "maskmill-ledger",
        patient: bool = True,
    ) -> None:
        """Connect on the first call.

        Args:
            settings: address, credentials and key prefix of Redis.
            retries: of a call while Redis cannot be reached: few while a user waits, more for a process that should
                survive a restart of Redis.
            client_name: name of the connections in `CLIENT LIST`.
            patient: repeat a call while Redis fails over to another primary, for `settings.failover_seconds` in all.
        """
        self.connection = RedisConnection(settings, retries=retries, client_name=client_name, patient=patient)
        self._prefix = settings.prefix
        self._records = Records(self.connection)

    # -- submission -----------------------------------------------------------------------------------------------

    def claim(self, key: str, job: str) -> str:
        """Reserve a job key for `job`, and return the job that holds it: `job`, or an earlier one."""
        name = redis_keys.job_key(self._prefix, key)
        self.connection.call(lambda: self.connection.client.set(name, job, nx=True))
        holder = self.holder(key)
        if holder is None:  # the key holds something else
            self.reassign_job_key(key, job)
            return job
        return holder

    def holder(self, key: str) -> str | None:
        """Return the job that holds a job key; None as well if the key holds no name of a job."""
        name = redis_keys.job_key(self._prefix, key)
        try:
            found = self.connection.call(lambda: self.connection.client.get(name))
        except RecordDamaged:
            return None
        return found if found is not None and is_job_id(found) else None

    def reassign_job_key(self, key: str, job: str) -> None:
        """Give a job key to `job`, because the job that holds it was never completely submitted."""
        self.connection.call(lambda: self.connection.client.set(redis_keys.job_key(self._prefix, key), job))

    def create(
        self,
        job: str,
        options: JobOptions,
        policy: JobPolicy | None = None,
        *,
        traceparent: str = "",
        again: bool = False,
    ) -> None:
        """Create a job in state `listing`.

        Args:
            job: its id.
            options: what to do.
            policy: how to do it.
            traceparent: names the span that submits it.
            again: a primary that Redis has no longer knew the job and may have let it run: workers look for its
                outputs before they make new ones.
        """
        now = self._now()
        fields = _submitted_fields(job, options, policy or JobPolicy()) | {
            "status": JobStatus.LISTING.value,
            "epoch": 0,
            "created_at": now,
            "queued_at": now,
            "beat_at": now,
            "server": self.connection.call(lambda: self.connection.client.info("server")).get("run_id", ""),
            **({"traceparent": traceparent} if traceparent else {}),
            **({"recheck": 1} if again else {}),
        }

        def write() -> None:
            pipeline = self.connection.client.pipeline(transaction=True)  # new for each try: a failed one is empty
            pipeline.hset(redis_keys.job(self._prefix, job), mapping=fields)
            pipeline.zadd(redis_keys.jobs(self._prefix), {job: now})
            pipeline.sadd(redis_keys.active(self._prefix), job)
            pipeline.execute()

        self.connection.call(write)

    def renew_listing(self, job: str) -> None:
        """Record that the producer of a job is still listing its images."""
        self.connection.run("renew_listing", job)

    def seal(
        self,
        job: str,
        *,
        total: int,
        chunk_images: int,
        size: int,
        on_unconfirmed: Callable[[], None] = lambda: None,
    ) -> bool:
        """Store the totals of a job after listing, and let it run.

        Args:
            job: its id.
            total: number of images.
            chunk_images: images in a chunk.
            size: bytes of all images.
            on_unconfirmed: called if too few replicas confirm that they have the job (`MASKMILL_REDIS__WAIT_REPLICAS`).

        Returns:
            False if the job is no longer being listed, because it was cancelled, or if Redis does not know it.

        Raises:
            ContractError: the job has more than `MAX_IMAGES` images.
        """
        if total > MAX_IMAGES:
            raise ContractError(f"a job has at most {MAX_IMAGES:,} images, this one has {total:,}: submit it in parts")
        args = (total, -(-total // chunk_images), chunk_images, size)
        return bool(self.connection.run_replicated("seal", job, *args, on_unconfirmed=on_unconfirmed))

    def is_confirmed(self, view: JobView) -> bool:
        """Return whether as many replicas have a sealed job as `MASKMILL_REDIS__WAIT_REPLICAS` demands."""
        if not self.connection.waits_for_replicas:
            return True
        if view.total is None:
            return False
        missing: list[str] = []
        known = self.seal(
            view.job,
            total=view.total,
            chunk_images=view.chunk_images,
            size=view.bytes,
            on_unconfirmed=lambda: missing.append(view.job),
        )
        return known and not missing

    def forget(self, job: str) -> bool:
        """Delete every key of a job, whatever it holds. What the job has in S3 stays.

        Returns:
            Whether there was anything.
        """

        def write() -> list[int]:
            pipeline = self.connection.client.pipeline(transaction=True)
            pipeline.delete(*redis_keys.job_keys(self._prefix, job))
            pipeline.zrem(redis_keys.jobs(self._prefix), job)
            pipeline.srem(redis_keys.active(self._prefix), job)
            return cast(list[int], pipeline.execute())

        return any(self.connection.call(write))

    def abandon(self, job: str, reason: str) -> None:
        """End a job whose submission failed: cancel it if it already runs, do nothing if it is unknown."""
        status, _ = self.connection.run("control", job, "cancel", shortened(reason))
        if status == JobStatus.CANCELLED:
            deactivate(self.connection, job)

    def abandon_silent(self, job: str, silence_seconds: float, reason: str) -> bool:
        """End a job that is being listed if its producer has been silent for `silence_seconds`.

        Returns:
            Whether this call ended it.
        """
        status, changed = self.connection.run("control", job, "abandon", reason, silence_seconds)
        if status == JobStatus.CANCELLED:
            deactivate(self.connection, job)
        return bool(changed)

    # -- control --------------------------------------------------------------------------------------------------

    def cancel(self, job: str, reason: str = "cancelled by hand") -> JobView:
        """Stop a job: images in flight are finished, no further image starts. Does nothing to a job that stops.

        Raises:
            JobNotFound: this Redis does not know the job.
            JobUnreadable: its record is damaged.
            JobStateError: the job has already ended in another way.
        """
        status = self._control(job, "cancel", shortened(reason))
        if status is JobStatus.CANCELLED:
            deactivate(self.connection, job)
        return self._expected(job, {JobStatus.STOPPING, JobStatus.CLOSING, JobStatus.CANCELLED}, "cancelled")

    def pause(self, job: str) -> JobView:
        """Start no further image of a job until `resume`.

        Raises:
            JobNotFound, JobStateError: as in `cancel`.
        """
        self._control(job, "pause")
        return self._expected(job, {JobStatus.PAUSED}, "paused")

    def resume(self, job: str) -> JobView:
        """Let a paused job run.

        Raises:
            JobNotFound, JobStateError: as in `cancel`.
        """
        self._control(job, "resume")
        return self._expected(job, {JobStatus.RUNNING}, "resumed")

    def reopen(self, job: str, *, failed: bool, cancelled: bool) -> JobView:
        """Run images of an ended job again. If a call is interrupted, a second one completes it.

        Args:
            job: its id.
            failed: run the images that failed or are dead.
            cancelled: run the images that have no outcome because the job was cancelled or stopped.

        Raises:
            JobNotFound, JobStateError: as in `cancel`.
        """
        before = self.view(job)
        if self.connection.run("reopen", job, int(failed)) is None:
            raise JobStateError(
                f"job {job} is {before.status.value}: only a job that was completely submitted and has ended can be "
                f"run again (`producer watch {job}` waits for its end)"
            )
        self.connection.call(lambda: self.connection.client.sadd(redis_keys.active(self._prefix), job))
        kinds = ({OutcomeKind.FAILED, OutcomeKind.DEAD} if failed else set()) | (
            {None, OutcomeKind.CANCELLED} if cancelled else set()
        )
        blocks = self.outcome_blocks(job, before.total or 0)
        for batch in _batches(outcome_codec.chunks_with(blocks, kinds, before.chunk_images)):
            self._reset(before, batch, failed=failed, cancelled=cancelled)
        self.connection.run("resume", job)
        return self.view(job)

    # -- restoring ------------------------------------------------------------------------------------------------

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
        """Put back a job that Redis has lost; it runs if it had not ended and images are left to do.

        It keeps its place in the queue: of two jobs that write to the same destination, the older one runs first.

        Args:
            job: its id, unknown to this Redis.
            options: as submitted.
            policy: as submitted.
            fields: of its record: epoch, total, bytes, chunk_images and times.
            counts: images by outcome.
            outcomes: state of each image, one byte each (`outcome_codec`).
            ending: the status with which it ended; None if it had not ended.

        Raises:
            JobStateError: Redis has the job by now: another recovery was faster.
        """
        size, total, now = int(str(fields["chunk_images"])), int(str(fields["total"])), self._now()
        chunks, left = -(-total // size), total - sum(counts.values())
        status = ending or (JobStatus.RUNNING if left else JobStatus.CLOSING)
        # Up to the last outcome, chunks with an image left are published one by one; after it, all in order.
        cursor = -(-len(outcomes.rstrip(b"\0")) // size) if status is JobStatus.RUNNING else chunks
        record = (
            _submitted_fields(job, options, policy)
            | {"queued_at": fields["created_at"], "chunks": chunks, "cursor": cursor, "status": status.value}
            | {"ending": ending.value if ending else "" if left else "finished"}
            | ({"finished_at": now} if ending else {})
            | ({"recheck": 1} if status is JobStatus.RUNNING else {})  # the last outcomes were in Redis alone
            | {kind.value: count for kind, count in counts.items() if count}
            | dict(fields)
        )
        returned = bytearray(-(-cursor // 8) if status is JobStatus.RUNNING else 0)
        if returned:
            for chunk in outcome_codec.chunks_with([outcomes[: cursor * size]], {None}, size):
                returned[chunk // 8] |= 0x80 >> chunk % 8  # the order of SETBIT
        args = [job, fields["created_at"], int(ending is None), secrets.token_hex(8)]
        args += [outcome_codec.packed(outcomes), bytes(returned)]
        args += [part for name, value in record.items() for part in (name, value)]
        keys = [*redis_keys.job_keys(self._prefix, job), redis_keys.jobs(self._prefix), redis_keys.active(self._prefix)]
        if not self.connection.call(lambda: self.connection.script("restore")(keys=keys, args=args)):
            raise JobStateError(f"job {job} is in Redis by now: another recovery was faster")
        return self.view(job)

    def _reset(self, view: JobView, chunks: list[int], *, failed: bool, cancelled: bool) -> None:
        script, keys = self.connection.script("reset"), redis_keys.job_keys(self._prefix, view.job)

        def write() -> None:
            pipeline = self.connection.client.pipeline(transaction=False)
            for chunk in chunks:
                first = chunk * view.chunk_images
                count = min(view.chunk_images, (view.total or 0) - first)
                script(keys=keys, args=[chunk, first, count, int(failed), int(cancelled)], client=pipeline)
            pipeline.execute()

        self.connection.call(write)

    # -- reading --------------------------------------------------------------------------------------------------

    def view(self, job: str) -> JobView:
        """Read one job with a single command, whatever its size.

        Raises:
            JobNotFound: this Redis does not know the job.
            JobUnreadable: its record is damaged.
        """
        record = self._records.read(job)
        if record is None:
            raise self._not_found(job)
        return record.view

    def newest(self, limit: int) -> list[JobView | UnreadableJob]:
        """Read the newest jobs, newest first, with those that cannot be read."""
        return self._records.newest(limit)

    def jobs(self, limit: int) -> list[JobView]:
        """Read the newest jobs, newest first; leave out those of the newest that cannot be read."""
        return [job for job in self.newest(limit) if isinstance(job, JobView)]

    def failures(self, job: str) -> list[dict[str, str]]:
        """Read the first failures of a job (at most `chunks.MAX_FAILURES`): kind, key, code, message."""
        name = redis_keys.job_keys(self._prefix, job).failures
        lines = self.connection.call(lambda: self.connection.client.lrange(name, 0, MAX_FAILURES - 1))
        found = filter(None, map(Outcome.read_line, lines))
        return [{"kind": o.kind.value, "key": o.key, "code": o.code, "message": o.message} for o in found]

    def outcomes(self, job: str, first: int, count: int) -> list[OutcomeKind | None]:
        """Read the outcomes of images `first` to `first + count - 1`; None for an image without one.

        Raises:
            JobUnreadable: an outcome is none of the known ones.
        """
        if count <= 0:
            return []
        fields = [part for index in range(first, first + count) for part in ("GET", "u4", f"#{index}")]
        key = redis_keys.job_keys(self._prefix, job).images
        found = self.connection.call(lambda: self.connection.client.execute_command("BITFIELD_RO", key, *fields))
        try:
            return [outcome_codec.KINDS[state] for state in found]
        except IndexError as error:
            raise JobUnreadable(job, "the state of an image is none that maskmill writes") from error

    def outcome_blocks(self, job: str, total: int) -> Iterator[bytes]:
        """Read the outcomes of all images in order, one byte per image (`outcome_codec.NUMBERS`), in blocks of 131,072.

        Args:
            job: its id.
            total: its number of images.

        Raises:
            JobUnreadable: an outcome is none of the known ones.
        """
        for start in range(0, (total + 1) // 2, _BLOCK_BYTES):
            block = outcome_codec.unpacked(self._packed_block(job, start))[: total - 2 * start]
            if not outcome_codec.known(block):
                raise JobUnreadable(job, "the state of an image is none that maskmill writes")
            yield block

    def _packed_block(self, job: str, start: int) -> bytes:
        key = redis_keys.job_keys(self._prefix, job).images
        end = start + _BLOCK_BYTES - 1
        block: bytes = self.connection.call(
            lambda: self.connection.client.execute_command("GETRANGE", key, start, end, NEVER_DECODE=True)
        )
        return block.ljust(_BLOCK_BYTES, b"\0")  # images without an outcome at the end are not stored

    def close(self) -> None:
        """Close all connections."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _now(self) -> float:
        """Return the server's time in Unix seconds, which orders jobs of producers whose clocks differ."""
        seconds, micros = self.connection.call(self.connection.client.time)
        return float(seconds) + float(micros) / 1e6

    def _control(self, job: str, action: str, reason: str = "") -> JobStatus:
        status, _ = self.connection.run("control", job, action, reason)
        if not status:
            self.view(job)  # says what is wrong with it, or that there is none
        if status not in set(JobStatus):
            raise JobUnreadable(job, "its status is unknown")
        return JobStatus(status)

    def _expected(self, job: str, statuses: set[JobStatus], what: str) -> JobView:
        view = self.view(job)
        if view.status not in statuses:
            now = view.status.value
            raise JobStateError(f"job {job} is {now} and can't be {what}: {_REMEDIES[view.status].format(job=job)}")
        return view

    def _not_found(self, job: str) -> JobNotFound:
        return JobNotFound(f"no job {job!r} at {self.connection.url}; `producer list` shows the known jobs")


def _submitted_fields(job: str, options: JobOptions, policy: JobPolicy) -> dict[str, Any]:
    """Return the fields of a job's record that hold what was submitted."""
    limits = {"max_failed": policy.max_failed, "max_failed_percent": policy.max_failed_percent}
    return {
        "job": job,
        "options": options.model_dump_json(),
        "policy": policy.model_dump_json(),
        "max_attempts": policy.max_attempts,
    } | {name: limit for name, limit in limits.items() if limit is not None}


def _batches(chunks: Iterable[int]) -> Iterator[list[int]]:
    chunks = iter(chunks)
    while batch := list(itertools.islice(chunks, _BATCH_CHUNKS)):
        yield batch
