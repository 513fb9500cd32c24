"""Both services together, over a state folder that survives them.

    STATE/
    ├── standalone.lock    held while we run; holds our process id
    ├── credentials.json   made once, mode 600
    ├── ports.json         taken again where they are still free, so that settings printed earlier stay valid
    ├── redis/  s3/        data
    └── logs/              redis.log, s3.log, and those of the run before

Everything in it belongs to one user (folders 700, files 600).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Mapping, Sequence
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
_PORT_RACES = 3


@dataclass(frozen=True)
class Credentials:
    """Made at random for one state folder."""

    redis_password: str = field(repr=False)
    s3_access_key_id: str = field(repr=False)
    s3_secret_access_key: str = field(repr=False)

    @classmethod
    def new(cls) -> Credentials:
        """Random ones, of letters and digits only: nothing to quote in a shell."""
        return cls(secrets.token_hex(24), f"maskmill{secrets.token_hex(6)}", secrets.token_hex(24))


class Standalone:
    """A Redis and an S3 server on 127.0.0.1; `with Standalone(folder) as services:`.

    `services.redis` and `services.s3` can be killed and started again one by one.
    """

    redis: Valkey
    s3: Seaweed

    def __init__(self, state: Path, *, buckets: Sequence[str] = (DEFAULT_BUCKET,), metrics: bool = False) -> None:
        """Describe the services; nothing is started or written yet.

        Args:
            state: folder of everything they keep.
            buckets: created when missing.
            metrics: whether the S3 server gets a port for Prometheus.
        """
        self.state = state.expanduser().absolute()
        self._buckets = tuple(buckets)
        self._wanted_ports = {"redis": (0,)} | dict(PORTS) | (dict(METRICS_PORT) if metrics else {})
        self._lock: IO[str] | None = None
        self._credentials: Credentials | None = None

    def start(self) -> None:
        """Start both and wait until they serve. Interrupted or failed, it leaves nothing behind.

        Raises:
            StandaloneError: something is missing or in the way, or another process uses this state folder.
        """
        if self._lock is not None:
            raise StandaloneError(f"the services in {self.state} have been started by this process already")
        try:
            with reraise_swallowed_interrupts():
                self._start()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop both in good order: S3, then Redis. Interrupted, it kills what is still there."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.kill)
            stack.enter_context(reraise_swallowed_interrupts())
            for service in self._services():
                service.stop()

    def kill(self) -> None:
        """End both at once. No acknowledged write is lost, the next start is as quick as ever."""
        with contextlib.ExitStack() as stack:  # whatever one of them raises, the rest is done as well
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
        """Address of Redis, without the password."""
        return self.redis.url

    @property
    def s3_endpoint(self) -> str:
        """Address of the S3 server."""
        return self.s3.endpoint

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the services that are up, by name (`redis`, `s3`)."""
        return {name: pid for name in _DATA if (pid := getattr(self, name).pid) is not None}

    def environment(self) -> dict[str, str]:
        """The settings to export so that producers and workers use these services. Holds secrets."""
        if self._credentials is None:
            raise StandaloneError("the credentials are known once the services have been started")
        return {
            "MASKMILL_REDIS__URL": self.redis_url,
            "MASKMILL_REDIS__PASSWORD": self._credentials.redis_password,
            "MASKMILL_S3__ENDPOINT_URL": self.s3_endpoint,
            "MASKMILL_S3__REGION": REGION,
            "MASKMILL_S3__ACCESS_KEY_ID": self._credentials.s3_access_key_id,
            "MASKMILL_S3__SECRET_ACCESS_KEY": self._credentials.s3_secret_access_key,
            "MASKMILL_S3__ADDRESSING_STYLE": "path",
        }

    def _start(self) -> None:
        private_folder(self.state)
        self._lock = _claimed(self.state / "standalone.lock", self.state)
        private_folder(self.state / "logs")
        for name in _DATA:  # servers of a process that was killed need a moment to let go of data and ports
            with server_lock(private_folder(self.state / name) / SERVER_LOCK, name):
                pass
        self._credentials = _kept_credentials(self.state / "credentials.json")
        self._start_on_free_ports(self._credentials)
        with ObjectStore(self.s3.settings) as store:
            for bucket in self._buckets:
                store.ensure_bucket(bucket)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _services(self) -> list[EmbeddedService]:
        """In the order of stopping, as far as they exist."""
        return [getattr(self, name) for name in ("s3", "redis") if hasattr(self, name)]

    def _start_on_free_ports(self, credentials: Credentials) -> None:
        """Start both, on other ports when somebody was quicker to take one."""
        file = self.state / "ports.json"
        for race in range(_PORT_RACES):
            kept = _kept_ports(file)
            chosen = ports.choose(self._wanted_ports, keep=kept)
            _announce_changes(kept, chosen)
            _write_private(file, chosen)
            self._describe(credentials, chosen)
            try:
                self._start_both()
            except StandaloneError:
                for service in self._services():
                    service.kill()
                if race == _PORT_RACES - 1 or _all_free(self._wanted_ports, chosen):
                    raise
            else:
                return

    def _describe(self, credentials: Credentials, chosen: Mapping[str, int]) -> None:
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

    def _start_both(self) -> None:
        """Side by side: SeaweedFS needs a second, in which Redis is up as well."""
        self.s3.launch()
        self.redis.start()
        self.s3.wait_ready()


def _claimed(path: Path, state: Path) -> IO[str]:
    """The lock of the state folder, with our process id in it."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StandaloneError(
                f"the services in {state} run already, under process {file.read().strip() or 'unknown'}: "
                "use those, stop that process, or choose another state folder"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        stack.pop_all()
    return file


def _kept_credentials(path: Path) -> Credentials:
    if not path.exists():
        made = Credentials.new()
        _write_private(path, {part.name: getattr(made, part.name) for part in fields(made)})
        return made
    try:
        kept = Credentials(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise StandaloneError(
            f"cannot read {path}: delete it, new credentials will be made and no data lost"
        ) from error
    if not all(isinstance(value, str) and value for value in vars(kept).values()):
        raise StandaloneError(f"a credential in {path} is empty: delete it, new ones will be made and no data lost")
    return kept


def _kept_ports(path: Path) -> dict[str, int]:
    """The ports of the last run; any trouble with the file costs no more than new ports."""
    try:
        kept = json.loads(path.read_text())
        return {str(name): int(port) for name, port in kept.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("cannot read %s (%s): choosing new ports", path, error)
        return {}


def _announce_changes(kept: Mapping[str, int], chosen: Mapping[str, int]) -> None:
    for name in kept.keys() & chosen.keys():
        if kept[name] != chosen[name]:
            log.warning(
                "port %d of the last run (%s) is in use by another program: now %d; export the settings again",
                kept[name],
                name,
                chosen[name],
            )


def _all_free(wanted: Mapping[str, Sequence[int]], chosen: Mapping[str, int]) -> bool:
    return all(ports.is_free(chosen[name] + offset) for name, offsets in wanted.items() for offset in offsets)


def _write_private(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file of mode 600, whole or not at all."""
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(content, file, indent=2)
    new.replace(path)
