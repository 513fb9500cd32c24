"""Redis behind Sentinels as an operator configures it: TLS everywhere, and users with few rights on every server.

An installed `redis-server` terminates TLS itself, also between the servers. The Valkey of the wheel is built without
TLS: its servers listen on 127.0.0.2 and talk to each other from there; all other clients meet `tls_front.py`, at the
addresses that the Sentinels name, which terminates TLS and requires a client certificate.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import tls_front
from support.certificates import Certificates
from support.redis_users import ADMIN, INFRA, PASSWORDS, PREFIX, for_version, users
from support.sentinels import DOWN_AFTER, FAILOVER_TIMEOUT, NAME, SentinelSet, Server, running, write
from worker.standalone import ports
from worker.standalone.valkey import server_program

SENTINEL, REPLICA = "maskmill-sentinel", "maskmill-replica"
CLIENT, OTHER_SENTINEL = "maskmill", "maskmill-sentinel"
"""Users at the Sentinels: of maskmill, and of the other Sentinels."""

SERVER_PASSWORDS = {name: f"canary+of/{name}#2" for name in (SENTINEL, REPLICA, CLIENT)}

_INNER = "127.0.0.2"


@dataclass
class SecuredSentinels(SentinelSet):
    """The running servers."""

    certificates: Certificates | None = None

    def environment_of(self, user: str) -> dict[str, str]:
        """Return the settings for connections as a user of the data servers over TLS."""
        assert self.certificates is not None
        own = self.certificates.client
        return {
            "MASKMILL_REDIS__URL": self.url.replace("sentinel://", "sentinels://"),
            "MASKMILL_REDIS__USERNAME": user,
            "MASKMILL_REDIS__PASSWORD": PASSWORDS[user],
            "MASKMILL_REDIS__SENTINEL_USERNAME": CLIENT,
            "MASKMILL_REDIS__SENTINEL_PASSWORD": SERVER_PASSWORDS[CLIENT],
            "MASKMILL_REDIS__PREFIX": PREFIX,
            "MASKMILL_REDIS__CA_FILE": str(self.certificates.authority),
            "MASKMILL_REDIS__CERT_FILE": str(own.certificate),
            "MASKMILL_REDIS__KEY_FILE": str(own.key),
        }

    def refused_commands(self) -> dict[str, list[str]]:
        """Return user -> commands that the running servers refused it, beside failed logins."""
        found: dict[str, list[str]] = {}
        for server in [*self.data, *self.sentinels]:
            if server.running:
                with server.client as client:
                    for entry in client.acl_log():
                        found.setdefault(entry["username"], []).append(f"{entry['reason']} {entry['object']}")
        return found


@contextlib.contextmanager
def secured_sentinels(folder: Path) -> Iterator[SecuredSentinels]:
    """Run the servers during the block."""
    folder.mkdir(parents=True, exist_ok=True)
    certificates = Certificates.make(folder / "tls")
    system = shutil.which("redis-server")
    program = Path(system) if system else server_program()
    numbers = list(ports.choose({f"server-{number}": (0,) for number in range(5)}).values())
    options = _test_options(certificates, own_tls=bool(system))
    data = [Server(port, folder / f"data-{port}", options=options, program=program) for port in numbers[:2]]
    sentinels = [
        Server(port, folder / f"sentinel-{port}", is_sentinel=True, options=options, program=program)
        for port in numbers[2:]
    ]
    for server in [*data, *sentinels]:
        network = _own_tls(server, certificates) if system else _behind_front(server)
        lines = _sentinel_lines(data[0]) if server.is_sentinel else _data_lines(None if server is data[0] else data[0])
        write(server, [*network, f"aclfile {server.folder / 'users.acl'}", *lines])
        rules = _sentinel_users() if server.is_sentinel else users() + _documented("data servers", (SENTINEL, REPLICA))
        (server.folder / "users.acl").write_text(for_version(program, rules))
    servers = SecuredSentinels(data, sentinels, certificates=certificates)
    with contextlib.ExitStack() as stack:
        if not system:
            pair = certificates.server
            files = (_INNER, pair.certificate, pair.key, certificates.authority, *numbers)
            front = subprocess.Popen([sys.executable, tls_front.__file__, "--servers", *map(str, files)])
            stack.callback(front.wait, 10)
            stack.callback(front.terminate)
        stack.enter_context(running(servers))
        yield servers


def _test_options(certificates: Certificates, *, own_tls: bool) -> dict[str, Any]:
    """Return how the test itself connects: as the administrator, past the front."""
    login = {"username": ADMIN, "password": PASSWORDS[ADMIN]}
    if not own_tls:
        return {"host": _INNER, **login}
    files = {
        "ssl_ca_certs": str(certificates.authority),
        "ssl_certfile": str(certificates.client.certificate),
        "ssl_keyfile": str(certificates.client.key),
    }
    return {"ssl": True, **files, **login}


def _own_tls(server: Server, certificates: Certificates) -> list[str]:
    return [
        "port 0",
        f"tls-port {server.port}",
        f"bind {server.address}",
        f"tls-cert-file {certificates.server.certificate}",
        f"tls-key-file {certificates.server.key}",
        f"tls-client-cert-file {certificates.client.certificate}",
        f"tls-client-key-file {certificates.client.key}",
        f"tls-ca-cert-file {certificates.authority}",
        "tls-auth-clients yes",
        "tls-replication yes",
    ]


def _behind_front(server: Server) -> list[str]:
    announced = "sentinel announce-ip" if server.is_sentinel else "replica-announce-ip"
    return [f"port {server.port}", f"bind {_INNER}", f"bind-source-addr {_INNER}", f"{announced} {server.address}"]


def _data_lines(primary: Server | None) -> list[str]:
    lines = [
        'save ""',
        "repl-diskless-sync-delay 0",
        "maxmemory-policy noeviction",
        f"masteruser {REPLICA}",
        f"masterauth {SERVER_PASSWORDS[REPLICA]}",
    ]
    return lines if primary is None else [*lines, f"replicaof {primary.address} {primary.port}"]


def _sentinel_lines(primary: Server) -> list[str]:
    return [
        f"sentinel monitor {NAME} {primary.address} {primary.port} 2",
        f"sentinel auth-user {NAME} {SENTINEL}",
        f"sentinel auth-pass {NAME} {SERVER_PASSWORDS[SENTINEL]}",
        f"sentinel down-after-milliseconds {NAME} {int(DOWN_AFTER * 1000)}",
        f"sentinel failover-timeout {NAME} {int(FAILOVER_TIMEOUT * 1000)}",
        f"sentinel sentinel-user {OTHER_SENTINEL}",
        f"sentinel sentinel-pass {SERVER_PASSWORDS[OTHER_SENTINEL]}",
    ]


def _sentinel_users() -> str:
    """Return the users at the Sentinels: those of the guide, and the administrator."""
    admin = hashlib.sha256(PASSWORDS[ADMIN].encode()).hexdigest()
    return f"user {ADMIN} on #{admin} ~* &* +@all\n" + _documented("Sentinels", ("default", CLIENT, OTHER_SENTINEL))


def _documented(place: str, names: tuple[str, ...]) -> str:
    """Return the lines of users that `infra/redis/README.md` has for the data servers, or for the Sentinels."""
    blocks = re.findall(r"```\n((?:user .*\n)+)```", (INFRA / "README.md").read_text())
    assert len(blocks) == 2, "one block of users for the data servers, one for the Sentinels"
    lines = blocks[place == "Sentinels"].splitlines()
    assert tuple(line.split()[1] for line in lines) == names, (place, lines)
    for name, password in SERVER_PASSWORDS.items():
        digest = hashlib.sha256(password.encode()).hexdigest()
        lines = [line.replace(f"{name.removeprefix('maskmill-').upper()}_SHA256", digest) for line in lines]
    return "\n".join(lines) + "\n"
