"""A Redis as an operator configures it: users of `infra/redis/users.acl`, and TLS.

An installed `redis-server` runs with `infra/redis/redis.conf` and terminates TLS itself. The Valkey of the wheel is
built without TLS; there `tls_front.py` terminates TLS and requires a client certificate.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from support.certificates import Certificates
from worker.standalone import ports
from worker.standalone.valkey import server_program

INFRA = Path(__file__).parents[2] / "infra/redis"
PREFIX = "maskmill:"
UNKNOWN_USER = "nobody"
"""Name of a user that does not exist. A test is refused with it, which stays in the server's ACL log."""
WORKER, PRODUCER, ADMIN, KEDA = "maskmill-worker", "maskmill-producer", "maskmill-admin", "maskmill-keda"
MONITOR = "maskmill-monitor"
PASSWORDS = {name: f"canary+of/{name}#1" for name in (WORKER, PRODUCER, ADMIN, KEDA, MONITOR)}


@dataclass(frozen=True)
class SecuredRedis:
    """A running server."""

    port: int
    """Port without TLS; 0 if there is none."""

    tls_port: int
    certificates: Certificates

    def environment(self, user: str) -> dict[str, str]:
        """Return the settings for connections as `user` over TLS."""
        own = self.certificates.client
        return {
            "MASKMILL_REDIS__URL": f"rediss://localhost:{self.tls_port}/0",
            "MASKMILL_REDIS__USERNAME": user,
            "MASKMILL_REDIS__PASSWORD": PASSWORDS[user],
            "MASKMILL_REDIS__PREFIX": PREFIX,
            "MASKMILL_REDIS__CA_FILE": str(self.certificates.authority),
            "MASKMILL_REDIS__CERT_FILE": str(own.certificate),
            "MASKMILL_REDIS__KEY_FILE": str(own.key),
        }

    def client(self, user: str) -> redis.Redis:
        """Open a connection as `user` over TLS."""
        own = self.certificates.client
        return redis.Redis(
            "localhost",
            self.tls_port,
            username=user,
            password=PASSWORDS[user],
            decode_responses=True,
            ssl=True,
            ssl_ca_certs=str(self.certificates.authority),
            ssl_certfile=str(own.certificate),
            ssl_keyfile=str(own.key),
        )


@contextlib.contextmanager
def secured_redis(folder: Path) -> Iterator[SecuredRedis]:
    """Run the server during the block."""
    folder.mkdir(parents=True, exist_ok=True)
    certificates = Certificates.make(folder / "tls")
    system = shutil.which("redis-server")
    program, own_tls = (Path(system), True) if system else (server_program(), False)
    chosen = ports.choose({"plain": (0,), "tls": (0,)})
    plain, tls = 0 if own_tls else chosen["plain"], chosen["tls"]
    (folder / "users.acl").write_text(for_version(program, users()))
    configuration = _configuration(folder, certificates, plain, tls if own_tls else None)
    with (folder / "redis.log").open("wb") as log:
        server = subprocess.Popen([program, "-"], stdin=subprocess.PIPE, stdout=log, stderr=log)
    processes = [server]
    try:
        assert server.stdin is not None
        server.stdin.write(configuration.encode())
        server.stdin.close()
        if not own_tls:
            pair = certificates.server
            files = (pair.certificate, pair.key, certificates.authority)
            front = [sys.executable, str(Path(__file__).with_name("tls_front.py")), str(tls), str(plain)]
            processes.append(subprocess.Popen([*front, *map(str, files)]))
        found = SecuredRedis(plain, tls, certificates)
        _wait(found, folder / "redis.log")
        yield found
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(10)


def users() -> str:
    """Return `users.acl` with the passwords of the tests."""
    text = (INFRA / "users.acl").read_text()
    for name, password in PASSWORDS.items():
        placeholder = f"{name.removeprefix('maskmill-').upper()}_SHA256"
        assert text.count(placeholder) == 1
        text = text.replace(placeholder, hashlib.sha256(password.encode()).hexdigest())
    return text


def for_version(program: Path, rules: str) -> str:
    """Return the rules as `infra/redis/README.md` adapts them to Redis before 7.2."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    old = re.search(r"v=7\.[01]\.", said)
    return rules.replace(" +client|setinfo", "") if old else rules


def _configuration(folder: Path, certificates: Certificates, plain: int, tls: int | None) -> str:
    """Return `redis.conf` with the paths and ports of a test; without TLS options if `tls` is None."""
    changed = {"port": str(plain), "dir": str(folder), "aclfile": str(folder / "users.acl")} | {
        "tls-port": str(tls),
        "tls-cert-file": str(certificates.server.certificate),
        "tls-key-file": str(certificates.server.key),
        "tls-ca-cert-file": str(certificates.authority),
    }
    lines = ["bind 127.0.0.1 127.0.0.2"]
    for line in (INFRA / "redis.conf").read_text().splitlines():
        name = line.partition(" ")[0]
        if tls is not None or not name.startswith("tls-"):
            lines.append(f"{name} {changed[name]}" if name in changed else line)
    return "\n".join(lines) + "\n"


def _wait(server: SecuredRedis, log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.ConnectionError), server.client(ADMIN) as client:
            client.ping()
            return
        time.sleep(0.05)
    raise AssertionError(f"Redis does not answer: {log.read_text()}")
