"""Both embedded services, with a state folder that persists between runs.

    STATE/
    ├── standalone.lock    locked while the services run; contains the process id of the owner
    ├── credentials.json   generated once, mode 600
    ├── ports.json         ports of the last run, used again if still free, so that exported settings stay valid
    ├── redis/  s3/        data
    └── logs/              redis.log, s3.log, and the logs of the previous run

Everything in it belongs to one user (folders 700, files 600).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Self

from worker.contract.errors import StandaloneError
from worker.contract.storage.s3 import ObjectStore
from worker.processes.service import reraise_swallowed_interrupts, server_lock
from worker.standalone import ports
from worker.standalone.embedded import SERVER_LOCK, EmbeddedService, private_folder
from worker.standalone.seaweed import METRICS_PORT, PORTS, REGION, Seaweed
from worker.standalone.valkey import Valkey

log = logging.getLogger(__name__)

DEFAULT_BUCKET = "maskmill"

_DATA = ("redis", "s3")
_START_ATTEMPTS = 3


@dataclass(frozen=True)
class Credentials:
    """Random credentials of one state folder."""

    redis_password: str = field(repr=False)
    s3_access_key_id: str = field(repr=False)
    s3_secret_access_key: str = field(repr=False)

    @classmethod
    def new(cls) -> Credentials:
        """Generate credentials of letters and digits only, which need no quoting in a shell."""
        return cls(secrets.token_hex(24), f"maskmill{secrets.token_hex(6)}", secrets.token_hex(24))


class Standalone:
    """A Redis and an S3 server on 127.0.0.1; `with Standalone(folder) as services:`.

    `services.redis` and `services.s3` can be killed and started again one by one.
    """

    redis: Valkey
    s3: Seaweed

    def __init__(self, state: Path, *, buckets: Sequence[str] = (DEFAULT_BUCKET,), metrics: bool = False) -> None:
        """Describe the services without starting them or writing anything.

        Args:
            state: the state folder.
            buckets: buckets to create if missing.
            metrics: whether the S3 server gets a port for Prometheus metrics.
        """
        self.state = state.expanduser().absolute()
        self._buckets = tuple(buckets)
        self._port_offsets = {"redis": (0,)} | dict(PORTS) | (dict(METRICS_PORT) if metrics else {})
        self._lock: IO[str] | None = None
        self._credentials: Credentials | None = None

    def start(self, on_redis: Callable[[], None] = lambda: None) -> None:
        """Start both services and wait until they are ready. If this fails or is interrupted, both are killed.

        Args:
            on_redis: called once Redis is ready and the S3 server is starting, when `environment()` is known. Called
                again if both have to be started once more, on other ports.

        Raises:
            StandaloneError: a program is missing, a service did not start, or another process uses this state folder.
        """
        if self._lock is not None:
            raise StandaloneError(f"the services in {self.state} were already started by this process")
        try:
            with reraise_swallowed_interrupts():
                self._start(on_redis)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop both services gracefully: S3, then Redis. If interrupted, kill them."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.kill)
            stack.enter_context(reraise_swallowed_interrupts())
            for service in self._services():
                service.stop()

    def kill(self) -> None:
        """Kill both services at once. No acknowledged write is lost, and the next start takes no longer than usual."""
        with contextlib.ExitStack() as stack:  # runs all callbacks even if one of them raises
            stack.callback(self._release)
            for service in self._services():
                stack.callback(service.kill)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def redis_url(self) -> str:
        """Return the address of Redis without the password."""
        return self.redis.url

    @property
    def s3_endpoint(self) -> str:
        """Return the address of the S3 server."""
        return self.s3.endpoint

    @property
    def pids(self) -> dict[str, int]:
        """Return the process ids of the running services, by name (`redis`, `s3`)."""
        return {name: pid for name in _DATA if (pid := getattr(self, name).pid) is not None}

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which producers and workers use these services, secrets included.

        Raises:
            StandaloneError: the services have not been started.
        """
        if self._credentials is None:
            raise StandaloneError("the credentials are not known before the services are started: call start() first")
        return {
            "MASKMILL_REDIS__URL": self.redis_url,
            "MASKMILL_REDIS__PASSWORD": self._credentials.redis_password,
            "MASKMILL_S3__ENDPOINT_URL": self.s3_endpoint,
            "MASKMILL_S3__REGION": REGION,
            "MASKMILL_S3__ACCESS_KEY_ID": self._credentials.s3_access_key_id,
            "MASKMILL_S3__SECRET_ACCESS_KEY": self._credentials.s3_secret_access_key,
            "MASKMILL_S3__ADDRESSING_STYLE": "path",
        }

    def _start(self, on_redis: Callable[[], None]) -> None:
        private_folder(self.state)
        self._lock = _lock_state(self.state / "standalone.lock", self.state)
        private_folder(self.state / "logs")
        for name in _DATA:  # servers of a process that was killed need a moment to let go of data and ports
            with server_lock(private_folder(self.state / name) / SERVER_LOCK, name):
                pass
        self._credentials = _load_or_create_credentials(self.state / "credentials.json")
        self._start_on_free_ports(self._credentials, on_redis)
        with ObjectStore(self.s3.settings) as store:
            for bucket in self._buckets:
                store.ensure_bucket(bucket)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _services(self) -> list[EmbeddedService]:
        """Return the services that have been described so far, in the order of stopping."""
        return [getattr(self, name) for name in ("s3", "redis") if hasattr(self, name)]

    def _start_on_free_ports(self, credentials: Credentials, on_redis: Callable[[], None]) -> None:
        """Start both services; retry on other ports if another process took one of them meanwhile."""
        file = self.state / "ports.json"
        for attempt in range(_START_ATTEMPTS):
            kept = _load_ports(file)
            chosen = ports.choose(self._port_offsets, keep=kept)
            _warn_of_changed_ports(kept, chosen)
            _write_private(file, chosen)
            self._describe(credentials, chosen)
            try:
                self._start_both(on_redis)
            except StandaloneError:
                for service in self._services():
                    service.kill()
                if attempt == _START_ATTEMPTS - 1 or _all_free(self._port_offsets, chosen):
                    raise
            else:
                return

    def _describe(self, credentials: Credentials, chosen: Mapping[str, int]) -> None:
        """Create the service objects for these credentials and ports."""
        logs = self.state / "logs"
        self.redis = Valkey(
            data=self.state / "redis",
            log=logs / "redis.log",
            port=chosen["redis"],
            password=credentials.redis_password,
        )
        self.s3 = Seaweed(
            data=self.state / "s3",
            log=logs / "s3.log",
            ports={name: port for name, port in chosen.items() if name != "redis"},
            access_key_id=credentials.s3_access_key_id,
            secret_access_key=credentials.s3_secret_access_key,
        )

    def _start_both(self, on_redis: Callable[[], None]) -> None:
        """Start both at the same time: SeaweedFS takes a second, Redis is ready within it."""
        self.s3.launch()
        self.redis.start()
        on_redis()
        self.s3.wait_ready()


def _lock_state(path: Path, state: Path) -> IO[str]:
    """Lock the state folder and write our process id into the lock file.

    Returns:
        The open lock file; closing it releases the lock.

    Raises:
        StandaloneError: another process holds the lock.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StandaloneError(
                f"the services in {state} are already running, under process {file.read().strip() or 'unknown'}: "
                "use them, stop that process, or choose another state folder"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        stack.pop_all()
    return file


def _load_or_create_credentials(path: Path) -> Credentials:
    if not path.exists():
        created = Credentials.new()
        _write_private(path, {part.name: getattr(created, part.name) for part in fields(created)})
        return created
    try:
        loaded = Credentials(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise StandaloneError(
            f"cannot read {path}: delete it; new credentials will be generated and no data is lost"
        ) from error
    if not all(isinstance(value, str) and value for value in vars(loaded).values()):
        raise StandaloneError(
            f"a credential in {path} is empty: delete the file; new ones will be generated and no data is lost"
        )
    return loaded


def _load_ports(path: Path) -> dict[str, int]:
    """Return the ports of the last run; an empty mapping if there was none or the file is not readable."""
    try:
        kept = json.loads(path.read_text())
        return {str(name): int(port) for name, port in kept.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("cannot read %s (%s): choosing new ports", path, error)
        return {}


def _warn_of_changed_ports(kept: Mapping[str, int], chosen: Mapping[str, int]) -> None:
    for name in kept.keys() & chosen.keys():
        if kept[name] != chosen[name]:
            log.warning(
                "port %d of the last run (%s) is in use by another program: now %d; export the settings again",
                kept[name],
                name,
                chosen[name],
            )


def _all_free(port_offsets: Mapping[str, Sequence[int]], chosen: Mapping[str, int]) -> bool:
    return all(ports.is_free(chosen[name] + offset) for name, offsets in port_offsets.items() for offset in offsets)


def _write_private(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file of mode 600 atomically (write and rename)."""
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, indent=2)
    new.replace(path)
