"""Job state in Redis: the only user of Redis commands beside Celery.

The changes that must not tear are Lua scripts (`lua/*.lua`), idempotent, so a redelivered or repeated call leaves
every count exact, and every call may be repeated after a lost connection.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any, cast

import redis
from pydantic import BaseModel, ConfigDict, Field
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from worker.contract import names
from worker.contract.errors import AccessDenied, BrokerUnavailable, JobNotFound, ServiceError, SetupError
from worker.contract.messages import ChunkMessage, JobOptions, JobStatus, Outcome, OutcomeKind
from worker.contract.settings import RedisSettings

MAX_ATTEMPTS = 3
"""Starts of a chunk without progress before what is left of it is `dead`."""

MAX_FAILURES = 1000
"""Failures kept with their text in Redis per job; bounds its memory."""

OLDEST_REDIS = (6, 2)
"""ZADD GT and the sweep of kombu (ZRANGE BYSCORE REV) need it."""

_STATES = {kind: number for number, kind in enumerate(OutcomeKind, start=1)}
_KINDS = dict(enumerate(OutcomeKind, start=1))
_MAX_MESSAGE = 300


class Verdict(StrEnum):
    """What `start` tells a worker to do with a chunk."""

    RUN = "run"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Start:
    """Answer to `start`."""

    verdict: Verdict
    outcomes: tuple[OutcomeKind | None, ...]
    """For each image of the chunk the outcome it already has; empty unless the verdict is run, done or dead."""

    options: JobOptions | None = None
    """What the job asks of every image; None for an unknown job."""


class JobView(BaseModel):
    """One job as `status` and `list` show it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job: str
    status: JobStatus
    options: JobOptions
    epoch: int = 0
    chunk_images: int
    total: int | None = Field(default=None, description="images; None while they are being listed")
    bytes: int = 0
    chunks: int = 0
    ok: int = 0
    skipped: int = 0
    failed: int = 0
    dead: int = 0
    cancelled: int = 0
    created_at: float
    submitted_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    reason: str = Field(default="", description="why a cancelled job was cancelled")

    @property
    def done(self) -> int:
        """Images with an outcome."""
        return self.ok + self.skipped + self.failed + self.dead + self.cancelled

    @property
    def ended(self) -> bool:
        """Nothing more will happen."""
        return self.status in (JobStatus.FINISHED, JobStatus.CANCELLED)


class Ledger:
    """All jobs of one installation. Thread-safe; make one per process, after any fork."""

    def __init__(self, settings: RedisSettings, *, retries: int = 2, client_name: str = "maskmill-ledger") -> None:
        """Connect lazily: nothing is sent before the first call.

        Args:
            settings: where Redis is.
            retries: of a call that finds no Redis, with pauses of 0.1, 0.2, 0.4, ... 2 s: few for a person who waits,
                more for a worker that should sit out a restart.
            client_name: how the connections call themselves in `CLIENT LIST`.
        """
        self._prefix = settings.prefix
        self._url = settings.url
        self._redis: Any = redis.Redis.from_url(
            settings.secret_url(),
            decode_responses=True,
            socket_timeout=settings.timeout_seconds,
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=25,
            client_name=client_name,
            retry=Retry(NoBackoff(), 0),  # of single commands: see `_call`
        )
        # Every call here may be repeated, so a restart of Redis costs a pause and no chunk.
        self._retry = Retry(
            ExponentialBackoff(cap=2, base=0.1), retries, supported_errors=(RedisConnectionError, RedisTimeoutError)
        )
        self._start = self._script("start")
        self._record = self._script("record")
        self._seal = self._script("seal")

    def _script(self, name: str) -> Any:
        folder = resources.files("worker.contract") / "lua"
        return self._redis.register_script(
            (folder / "states.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")
        )

    # -- producer -------------------------------------------------------------------------------------------------

    def create(self, job: str, options: JobOptions, *, chunk_images: int) -> None:
        """Open a job in state `listing`."""
        now = time.time()
        fields = {
            "job": job,
            "status": JobStatus.LISTING.value,
            "options": options.model_dump_json(),
            "epoch": 0,
            "chunk_images": chunk_images,
            "created_at": now,
        }

        def write() -> None:
            pipeline = self._redis.pipeline(transaction=True)  # a new one each time: a failed one forgets its commands
            pipeline.hset(names.job(self._prefix, job), mapping=fields)
            pipeline.zadd(names.jobs(self._prefix), {job: now})
            pipeline.execute()

        self._call(write)

    def seal(self, job: str, *, total: int, chunks: int, size: int) -> bool:
        """End listing: the totals are known and the job runs. False when it is not being listed any more."""
        keys, args = [names.job(self._prefix, job)], [total, chunks, size, time.time()]
        return bool(self._call(lambda: self._seal(keys=keys, args=args)))

    def expect(self, job: str, chunks: Iterable[int]) -> None:
        """Note chunks as outstanding, before they are published: a publish that fails is then known to be missing."""
        now = time.time()
        scores = {str(chunk): now for chunk in chunks}
        self._call(lambda: self._redis.zadd(names.outstanding(self._prefix, job), scores))

    def abandon(self, job: str, reason: str) -> None:
        """Cancel a job that could not be submitted; workers drop what is already queued of it."""
        fields = {"status": JobStatus.CANCELLED.value, "reason": reason, "finished_at": time.time()}
        self._call(lambda: self._redis.hset(names.job(self._prefix, job), mapping=fields))

    # -- worker ---------------------------------------------------------------------------------------------------

    def start(self, message: ChunkMessage, *, max_attempts: int = MAX_ATTEMPTS) -> Start:
        """Count an attempt at a chunk and learn what to do with it."""
        keys = [
            names.job(self._prefix, message.job),
            names.states(self._prefix, message.job),
            names.attempts(self._prefix, message.job),
            names.outstanding(self._prefix, message.job),
        ]
        args = [message.chunk, message.start, len(message.keys), time.time(), max_attempts]
        verdict, states, options = self._call(lambda: self._start(keys=keys, args=args))
        return Start(
            Verdict(verdict),
            tuple(_KINDS.get(state) for state in states),
            JobOptions.model_validate_json(options) if options else None,
        )

    def record(self, message: ChunkMessage, outcomes: Sequence[Outcome]) -> bool:
        """Write outcomes of images of a chunk; also the sign that the chunk is alive. True when the job finished."""
        triples: list[object] = []
        for outcome in outcomes:
            detail = {"key": outcome.key, "code": outcome.code, "message": outcome.message[:_MAX_MESSAGE]}
            triples += [outcome.index, _STATES[outcome.kind], json.dumps({"kind": outcome.kind.value} | detail)]
        keys = [
            names.job(self._prefix, message.job),
            names.states(self._prefix, message.job),
            names.attempts(self._prefix, message.job),
            names.outstanding(self._prefix, message.job),
            names.failures(self._prefix, message.job),
        ]
        args = [message.chunk, message.start, len(message.keys), time.time(), MAX_FAILURES, *triples]
        return bool(self._call(lambda: self._record(keys=keys, args=args)))

    def hand_back(self, message: ChunkMessage) -> None:
        """Give back the attempt of a chunk that was stopped by nobody's fault."""
        key = names.attempts(self._prefix, message.job)
        self._call(lambda: self._redis.hincrby(key, message.chunk, -1))

    # -- both -----------------------------------------------------------------------------------------------------

    def view(self, job: str) -> JobView:
        """One job, in one read whatever its size.

        Raises:
            JobNotFound: unknown to this Redis.
        """
        fields = self._call(lambda: self._redis.hgetall(names.job(self._prefix, job)))
        if not fields:
            raise JobNotFound(f"no job {job!r} at {self._url}; `producer list` shows those there are")
        return _view(fields)

    def jobs(self, limit: int) -> list[JobView]:
        """The newest jobs, newest first."""

        def read() -> list[dict[str, str]]:
            pipeline = self._redis.pipeline(transaction=False)
            for job in self._redis.zrevrange(names.jobs(self._prefix), 0, limit - 1):
                pipeline.hgetall(names.job(self._prefix, job))
            return cast(list[dict[str, str]], pipeline.execute())

        return [_view(fields) for fields in self._call(read) if fields]

    def failures(self, job: str) -> list[dict[str, str]]:
        """The first failures of a job (at most `MAX_FAILURES`): kind, key, code, message."""
        lines = self._call(lambda: self._redis.lrange(names.failures(self._prefix, job), 0, -1))
        return [json.loads(line) for line in lines]

    def outcomes(self, job: str, first: int, count: int) -> list[OutcomeKind | None]:
        """Outcomes of images `first` to `first + count - 1`; None for those without one."""
        if count <= 0:
            return []
        fields = [part for index in range(first, first + count) for part in ("GET", "u4", f"#{index}")]
        key = names.states(self._prefix, job)
        return [
            _KINDS.get(state) for state in self._call(lambda: self._redis.execute_command("BITFIELD_RO", key, *fields))
        ]

    def check(self) -> dict[str, str]:
        """Facts about the server, for `worker check`.

        Raises:
            BrokerUnavailable, AccessDenied: it does not answer, or not us.
            SetupError: it answers, but work would get lost on it.
        """
        info = self._call(self._redis.info)
        policy = str(info.get("maxmemory_policy", "unknown"))
        version = str(info["redis_version"])
        if info.get("redis_mode", info.get("server_mode")) == "cluster":
            raise SetupError(f"{self._url} is a Redis Cluster, which Celery cannot use: give maskmill a plain Redis")
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
            raise SetupError(f"{self._url} is Redis {version}: 6.2 or later is needed")
        if policy not in ("noeviction", "unknown"):
            raise SetupError(f"{self._url} may evict queued work: set maxmemory-policy noeviction (is {policy})")
        return {
            "server": str(info.get("server_name", "redis")),
            "version": str(info.get("valkey_version", version)),
            "append_only": "yes" if info.get("aof_enabled") else "no",
        }

    def queued(self) -> int:
        """Chunk messages waiting in the broker."""
        return cast(int, self._call(lambda: self._redis.llen(f"{self._prefix}{names.QUEUE}")))

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, call: Callable[[], Any]) -> Any:
        """Make a call, again if Redis is away for a moment, and turn what it raises into our errors."""
        try:
            return self._retry.call_with_retry(
                call, fail=lambda _: None, is_retryable=lambda error: not isinstance(error, AuthenticationError)
            )
        except (AuthenticationError, NoPermissionError) as error:
            raise AccessDenied(
                f"{self._url} refused us: check MASKMILL_REDIS__USERNAME, MASKMILL_REDIS__PASSWORD and the ACL"
            ) from error
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise BrokerUnavailable(
                f"{self._url} cannot be reached: is it running, is MASKMILL_REDIS__URL right? ({error})"
            ) from error
        except RedisError as error:
            raise ServiceError(f"{self._url} answered: {error}") from error


def _view(fields: dict[str, str]) -> JobView:
    return JobView.model_validate(fields | {"options": json.loads(fields["options"])})
