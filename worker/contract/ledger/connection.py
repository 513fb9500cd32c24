"""The connection to Redis: one pool of sockets, the ledger's Lua scripts, and Redis errors translated into ours.

Every call made through it may be repeated after a lost connection, because the scripts are idempotent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import resources
from typing import Any, Self

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from worker.contract import redis_keys
from worker.contract.errors import (
    AccessDenied,
    BrokerUnavailable,
    JobUnreadable,
    RecordDamaged,
    ServiceError,
    SetupError,
)
from worker.contract.settings import RedisSettings

OLDEST_REDIS = (6, 2)
"""Needed for ZADD GT, and by kombu, which finds expired leases with ZRANGE BYSCORE REV."""

_DAMAGE = re.compile(
    "WRONGTYPE|value is not|not a valid float|bit offset|would overflow|would produce|exceeds maximum|"
    "attempt to|Expected |bad argument"
)
"""Found in answers of Redis, and of Lua inside it, that say what a key or a field holds, not how the server is."""

_STATE = re.compile("(BUSY|MISCONF|NOREPLICAS|TRYAGAIN|UNBLOCKED) ")
"""Begins answers that say how the server is: a script runs, the disk is full, replicas are away. It may pass."""

_PASSING = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, BusyLoadingError, MasterDownError)
"""What a client sees during a restart or a failover."""


class RedisConnection:
    """A pool of connections to one Redis. Thread-safe; create one per process, after any fork."""

    def __init__(self, settings: RedisSettings, *, retries: int, client_name: str) -> None:
        """Connect on the first call.

        Args:
            settings: address, credentials and key prefix.
            retries: of a call while Redis cannot be reached, after pauses of 0.1, 0.2, 0.4, ... 2 s.
            client_name: name of the connections in `CLIENT LIST`.
        """
        self.prefix = settings.prefix
        self.url = settings.url
        self.client: Any = redis.Redis.from_url(
            settings.secret_url(),
            decode_responses=True,
            encoding_errors="surrogateescape",  # bytes that are no UTF-8 are refused where the record is checked
            socket_timeout=settings.timeout_seconds,
            socket_connect_timeout=5,
            socket_keepalive=True,
            health_check_interval=25,
            client_name=client_name,
            retry=Retry(NoBackoff(), 0),  # no retry of single commands: `call` retries
        )
        # With these, a restart of Redis costs a pause but no chunk.
        self._retry = Retry(ExponentialBackoff(cap=2, base=0.1), retries, supported_errors=(*_PASSING, ResponseError))
        self._scripts: dict[str, Any] = {}

    def run(self, script: str, job: str, *args: object) -> Any:
        """Run a script of `lua/` on the keys of one job and return its answer.

        Raises:
            JobUnreadable: a key of the job has another type or content than the script expects.
            ServiceError: as in `call`.
        """
        try:
            return self.call(lambda: self.script(script)(keys=redis_keys.job_keys(self.prefix, job), args=args))
        except RecordDamaged as error:
            raise JobUnreadable(job, f"Redis cannot run `{script}` on its keys") from error

    def script(self, name: str) -> Any:
        """Return a script of `lua/` with the shared head in front; pass `client=` to call it in a pipeline."""
        if name not in self._scripts:
            folder = resources.files("worker.contract.ledger") / "lua"
            text = (folder / "head.lua").read_text("utf-8") + (folder / f"{name}.lua").read_text("utf-8")
            self._scripts[name] = self.client.register_script(text)
        return self._scripts[name]

    def call(self, call: Callable[[], Any]) -> Any:
        """Make a call, retry it while Redis is briefly unavailable, and translate its errors.

        Raises:
            AccessDenied: user or password is wrong, or the ACL forbids the command.
            BrokerUnavailable: Redis cannot be reached, is full, or is currently not a primary.
            RecordDamaged: a key holds something of another type or form.
            ServiceError: Redis refuses the command for another reason.
        """
        try:
            return self._retry.call_with_retry(call, fail=lambda _: None, is_retryable=_may_pass)
        except (AuthenticationError, NoPermissionError) as error:
            raise AccessDenied(
                f"{self.url} denied access: check MASKMILL_REDIS__USERNAME, MASKMILL_REDIS__PASSWORD and the ACL"
            ) from error
        except OutOfMemoryError as error:
            raise BrokerUnavailable(
                f"{self.url} has reached maxmemory: raise it, or wait for running jobs to end; nothing is lost"
            ) from error
        except _PASSING as error:
            raise BrokerUnavailable(
                f"{self.url} cannot be reached: is it running, is MASKMILL_REDIS__URL right? ({error})"
            ) from error
        except RedisError as error:
            if _says_state(error):
                raise BrokerUnavailable(f"{self.url} takes no commands at the moment: {error!s:.200}") from error
            if isinstance(error, ResponseError) and _DAMAGE.search(str(error)):
                raise RecordDamaged(
                    f"{self.url} holds something of another type or form than maskmill stores there: {error!s:.200}"
                ) from error
            raise ServiceError(f"{self.url} answered: {error}") from error

    def check(self) -> dict[str, str]:
        """Return `server`, `version` and `append_only` of the server after checking that it is suitable.

        Raises:
            BrokerUnavailable, AccessDenied: as in `call`.
            SetupError: the server is a cluster or too old, or may evict queued work.
        """
        info = self.call(self.client.info)
        policy = str(info.get("maxmemory_policy", "unknown"))
        version = str(info["redis_version"])
        if info.get("redis_mode", info.get("server_mode")) == "cluster":
            raise SetupError(f"{self.url} is a Redis Cluster, which Celery does not support: use a plain Redis")
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
            raise SetupError(f"{self.url} is Redis {version}: 6.2 or later is required")
        if policy not in ("noeviction", "unknown"):
            raise SetupError(f"{self.url} may evict queued work: set maxmemory-policy to noeviction (it is {policy})")
        return {
            "server": str(info.get("server_name", "redis")),
            "version": str(info.get("valkey_version", version)),
            "append_only": "yes" if info.get("aof_enabled") else "no",
        }

    def close(self) -> None:
        """Close all connections of the pool."""
        self.client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _says_state(error: Exception) -> bool:
    return isinstance(error, ResponseError) and _STATE.match(str(error)) is not None


def _may_pass(error: Exception) -> bool:
    if isinstance(error, AuthenticationError):
        return False
    return isinstance(error, _PASSING) or _says_state(error)
