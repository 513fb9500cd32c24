"""The connection to Redis: one pool of sockets, the ledger's Lua scripts, and Redis errors translated into ours.

Every call made through it may be repeated after a lost connection, because the scripts are idempotent. The whole call
is repeated, never a single command: only a new call asks for the primary again (`primary`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from importlib import resources
from typing import Any, Self, cast

import redis
from redis.backoff import NoBackoff
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
    SettingsError,
    SetupError,
)
from worker.contract.ledger.primary import Demoted, NoPrimary, NoSentinel, Primary, SentinelDenied, UnknownPrimary
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

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between two tries of a call: doubled after each, up to the longest."""

_FAILOVER_PAUSE = 0.5
"""The longest pause, in seconds, while a new primary is expected."""


class RedisConnection:
    """A pool of connections to one Redis. Thread-safe; create one per process, after any fork."""

    def __init__(self, settings: RedisSettings, *, retries: int, client_name: str, patient: bool = False) -> None:
        """Connect on the first call.

        Args:
            settings: address, credentials and key prefix.
            retries: of a call while Redis cannot be reached, after pauses of 0.1, 0.2, 0.4, ... 2 s.
            client_name: name of the connections in `CLIENT LIST`.
            patient: repeat a call for `settings.failover_seconds` while Redis fails over to another primary.
        """
        self.prefix = settings.prefix
        self.url = settings.url
        self.primary = Primary(settings)
        self.client: Any = redis.Redis(
            connection_pool=self.primary.pool_of_settings(
                decode_responses=True,
                encoding_errors="surrogateescape",  # bytes that are no UTF-8 are refused where the record is checked
                socket_timeout=settings.timeout_seconds,
                socket_connect_timeout=5,
                socket_keepalive=True,
                health_check_interval=25,
                client_name=client_name,
                retry=Retry(NoBackoff(), 0),  # no retry of single commands: `call` retries
            )
        )
        # With these, a restart of Redis costs a pause but no chunk.
        self._retries = retries
        self.failover_seconds = settings.failover_seconds if patient else 0.0
        """Time for which a call is repeated during a failover."""
        self._wait_replicas, self._wait_milliseconds = settings.wait_replicas, int(settings.wait_seconds * 1000)
        self._answered = False
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

    @property
    def waits_for_replicas(self) -> bool:
        """Whether `run_replicated` waits for replicas."""
        return self._wait_replicas > 0

    def run_replicated(self, script: str, job: str, *args: object, on_unconfirmed: Callable[[], None]) -> Any:
        """Run a script as `run` does, and wait until as many replicas have its writes as `wait_replicas` demands.

        The script must write whenever it finds its work done, for a repeated call confirms nothing without a write.
        Without confirmation within `wait_seconds` the writes are done too, but a failover may undo them: then
        `on_unconfirmed` is called.
        """
        if not self._wait_replicas:
            return self.run(script, job, *args)

        def run_and_wait() -> list[Any]:
            # WAIT counts the writes of its own connection, and does not wait inside a transaction.
            pipeline = self.client.pipeline(transaction=False)
            self.script(script)(keys=redis_keys.job_keys(self.prefix, job), args=args, client=pipeline)
            pipeline.execute_command("WAIT", self._wait_replicas, self._wait_milliseconds)
            return cast(list[Any], pipeline.execute())

        answer, replicas = self.call(run_and_wait)
        if replicas < self._wait_replicas:
            on_unconfirmed()
        return answer

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
            SettingsError: the Sentinels do not monitor a primary of that name.
        """
        try:
            return self._repeated(call)
        except SentinelDenied as error:
            raise AccessDenied(
                f"a Sentinel of {self.url} denied access: check MASKMILL_REDIS__SENTINEL_USERNAME, "
                f"MASKMILL_REDIS__SENTINEL_PASSWORD and the ACL of the Sentinels ({error!s:.200})"
            ) from error
        except UnknownPrimary as error:
            raise SettingsError(
                f"the Sentinels of {self.url} monitor no primary of that name: correct MASKMILL_REDIS__URL after the "
                "last host, as in `sentinel monitor NAME`"
            ) from error
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

    def _repeated(self, call: Callable[[], Any]) -> Any:
        end, failures = time.monotonic() + self.failover_seconds, 0
        while True:
            try:
                answer = call()
            except RedisError as error:
                failures += 1
                expected = self._may_fail_over(error) and time.monotonic() < end
                if not _may_pass(error) or not (failures <= self._retries or expected):
                    raise
                pause = _FIRST_PAUSE * 2 ** min(failures - 1, 10)
                time.sleep(min(pause, _FAILOVER_PAUSE if expected else _LONGEST_PAUSE))
            else:
                self._answered = True
                return answer

    def _may_fail_over(self, error: Exception) -> bool:
        """Return whether a new primary may take over soon: not if the address has never been right."""
        if isinstance(error, Demoted | NoPrimary | ReadOnlyError | BusyLoadingError) or _says_state(error):
            return True
        return self._answered or (self.primary.behind is not None and not isinstance(error, NoSentinel))

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
        self.client.connection_pool.disconnect()  # the client closes only a pool that it made itself

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _says_state(error: Exception) -> bool:
    return isinstance(error, ResponseError) and _STATE.match(str(error)) is not None


def _may_pass(error: Exception) -> bool:
    if isinstance(error, AuthenticationError | UnknownPrimary):
        return False
    return isinstance(error, _PASSING) or _says_state(error)
