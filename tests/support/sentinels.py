"""A primary, a replica and three Sentinels of the embedded Valkey, for tests to fail over.

    with sentinel_set(folder) as servers: ...

Each server has a folder and a configuration file of its own, because Sentinels rewrite theirs. Signals go to processes
of the set only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from support import commands
from support.clocks import SteppedClock
from worker.standalone import ports
from worker.standalone.valkey import server_program

NAME = "mymaster"
PASSWORD = "only-for-this-test"
SENTINEL_PASSWORD = "only-for-the-sentinels"

DOWN_AFTER, FAILOVER_TIMEOUT = 2.0, 4.0
"""Seconds of silence after which a Sentinel takes the primary for down, and after which a failover is tried again."""


@dataclass
class Server:
    """One data server or Sentinel."""

    port: int
    folder: Path
    is_sentinel: bool = False
    address: str = "127.0.0.1"
    clock: SteppedClock | None = None
    """Another clock than the machine's."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the test's own connections that differ from address, port and password."""
    program: Path = field(default_factory=server_program)
    process: subprocess.Popen[bytes] | None = None
    frozen: bool = False

    @property
    def client(self) -> Any:
        """A new client, which tries each command once."""
        options: dict[str, Any] = {
            "host": self.address,
            "port": self.port,
            "password": SENTINEL_PASSWORD if self.is_sentinel else PASSWORD,
            "decode_responses": True,
            "socket_timeout": 3,
            "retry": Retry(NoBackoff(), 0),
            "client_name": "the-test",
        }
        return redis.Redis(**options | dict(self.options))

    def start(self) -> None:
        """Start the process from its file."""
        arguments = [str(self.program), str(self.folder / "server.conf")]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                arguments + ["--sentinel"] * self.is_sentinel,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**os.environ, **({} if self.clock is None else self.clock.server_environment())},
            )

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        assert self.process is not None and self.process.poll() is None
        os.kill(self.process.pid, number)
        self.frozen = number == signal.SIGSTOP

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.frozen = False

    @property
    def pid(self) -> int | None:
        """The process id; None before the start."""
        return None if self.process is None else self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists and is not frozen."""
        return self.process is not None and self.process.poll() is None and not self.frozen


@dataclass
class SentinelSet:
    """The servers, and what a test does to them."""

    data: list[Server]
    sentinels: list[Server]
    started: float = field(default_factory=time.monotonic)

    @property
    def url(self) -> str:
        """The setting MASKMILL_REDIS__URL."""
        return f"sentinel://{','.join(f'{one.address}:{one.port}' for one in self.sentinels)}/{NAME}"

    def environment(self) -> dict[str, str]:
        """Return the settings of an installation in this set."""
        return {
            "MASKMILL_REDIS__URL": self.url,
            "MASKMILL_REDIS__PASSWORD": PASSWORD,
            "MASKMILL_REDIS__SENTINEL_PASSWORD": SENTINEL_PASSWORD,
        }

    def primary(self) -> Server:
        """Return the server that the Sentinels name."""
        port = int(self.ask("MASTER")["port"])
        return next(server for server in self.data if server.port == port)

    def replica(self) -> Server:
        """Return the other data server."""
        primary = self.primary()
        return next(server for server in self.data if server is not primary)

    def ask(self, question: str) -> dict[str, Any]:
        """Return the answer of the first running Sentinel to `SENTINEL question NAME`."""
        sentinel = next(one for one in self.sentinels if one.running)
        with sentinel.client as client:
            return (
                dict(client.sentinel_master(NAME))
                if question == "MASTER"
                else client.execute_command("SENTINEL", question, NAME)
            )

    def fail_over(self, how: str, *, wait: bool = True) -> Server:
        """Let the primary fail in a way, wait until the Sentinels name another, and return the one that failed.

        Args:
            how: `kill` (SIGKILL), `freeze` (SIGSTOP), `coordinated` or `forced` (SENTINEL FAILOVER).
            wait: return only when there is another.
        """
        failed = self.primary()
        if how == "kill":
            failed.kill()
        elif how == "freeze":
            failed.signal(signal.SIGSTOP)
        else:
            with self.sentinels[0].client as client:
                client.execute_command("SENTINEL", "FAILOVER", NAME, *["COORDINATED"] * (how == "coordinated"))
        if wait:
            commands.wait_for(lambda: self.primary() is not failed, f"another primary after: {how}", 30)
        return failed

    def heal(self) -> None:
        """Start or resume all servers, and wait until all Sentinels see a primary with a replica in step."""
        for server in [*self.data, *self.sentinels]:
            if server.frozen:
                server.signal(signal.SIGCONT)
            elif not server.running:
                server.start()
        primary = self.primary()
        for server in self.data:
            if server is not primary:  # a Sentinel would do it too, after ten seconds
                commands.wait_for(lambda server=server: _follow(server, primary), "the replica to follow", 10)
        commands.wait_for(self.whole, "the set to be whole", 30)

    def whole(self) -> bool:
        """Return whether all Sentinels agree on the primary, and its replica is in step."""
        try:
            states = []
            for sentinel in self.sentinels:
                with sentinel.client as client:
                    states.append(dict(client.sentinel_master(NAME)))
            if len({state["port"] for state in states}) > 1 or any(state["flags"] != "master" for state in states):
                return False
            if any(state["num-other-sentinels"] != len(self.sentinels) - 1 for state in states):
                return False
            if any(state["num-slaves"] != len(self.data) - 1 for state in states):
                return False
            return self.in_step(self.primary())
        except redis.RedisError:
            return False

    def in_step(self, primary: Server) -> bool:
        """Return whether a server is a primary, and all others follow it without delay."""
        try:
            with primary.client as client:
                replication = client.info("replication")
            replicas = [replication.get(f"slave{number}") for number in range(replication["connected_slaves"])]
            # A replica that still loads its copy is online too, at offset 0.
            healthy = [
                one for one in replicas if one and one["state"] == "online" and one["offset"] and one["lag"] <= 1
            ]
            return replication["role"] == "master" and len(healthy) == len(self.data) - 1
        except redis.RedisError:
            return False

    @contextlib.contextmanager
    def demanding_replicas(self) -> Iterator[None]:
        """Let the primary refuse writes in the block while its replica does not confirm them."""
        with self.primary().client as client:
            client.config_set("min-replicas-to-write", 1)
            try:
                yield
            finally:
                client.config_set("min-replicas-to-write", 0)

    @contextlib.contextmanager
    def deaf_replica(self) -> Iterator[None]:
        """Let the replica miss everything that is written in the block."""
        replica, primary = self.replica(), self.primary()
        with replica.client as client:
            client.config_set("primaryauth", "wrong")
        with primary.client as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        try:
            yield
        finally:
            if replica.running:
                with replica.client as client:
                    client.config_set("primaryauth", PASSWORD)
                    client.config_rewrite()  # its promotion has written the wrong one to its file


@contextlib.contextmanager
def sentinel_set(folder: Path, *, address: str = "127.0.0.1", clocks: bool = False) -> Iterator[SentinelSet]:
    """Run a set; the block starts once all servers know each other, after about three seconds.

    Args:
        folder: of the servers' files.
        address: that all servers listen on.
        clocks: whether the data servers have clocks that can be stepped.
    """
    chosen = ports.choose({f"server-{number}": (0,) for number in range(5)})
    numbers = list(chosen.values())
    data = [Server(port, folder / f"data-{port}", address=address) for port in numbers[:2]]
    sentinels = [Server(port, folder / f"sentinel-{port}", is_sentinel=True, address=address) for port in numbers[2:]]
    for number, server in enumerate(data):
        write(server, _data_configuration(server, data[0].port if number else None))
        if clocks:
            server.clock = SteppedClock(server.folder / "clock")
    for server in sentinels:
        write(server, _sentinel_configuration(server, data[0].port))
    servers = SentinelSet(data, sentinels)
    with running(servers):
        yield servers


@contextlib.contextmanager
def running(servers: SentinelSet) -> Iterator[None]:
    """Run the servers of a set, whose files exist; the first data server is the primary."""
    try:
        for server in servers.data:
            server.start()
        # Sentinels look for replicas when they start, and then every ten seconds.
        commands.wait_for(lambda: servers.in_step(servers.data[0]), "the replica", 30)
        for server in servers.sentinels:
            server.start()
        commands.wait_for(servers.whole, "the Sentinel set", 30)
        yield
    finally:
        for server in [*servers.sentinels, *servers.data]:
            server.kill()


def _follow(server: Server, primary: Server) -> bool:
    try:
        with server.client as client:
            client.replicaof(primary.address, str(primary.port))
    except redis.RedisError:
        return False
    return True


def write(server: Server, lines: list[str]) -> None:
    """Write the configuration of a server, in a new folder."""
    server.folder.mkdir(parents=True)
    (server.folder / "server.conf").write_text("\n".join([f"dir {server.folder}", *lines]) + "\n")


def _data_configuration(server: Server, primary: int | None) -> list[str]:
    lines = [
        f"port {server.port}",
        f"bind {server.address}",
        'save ""',
        "repl-diskless-sync-delay 0",
        "maxmemory-policy noeviction",
        f"requirepass {PASSWORD}",
        f"primaryauth {PASSWORD}",
        "min-replicas-max-lag 2",
    ]
    return lines if primary is None else [*lines, f"replicaof {server.address} {primary}"]


def _sentinel_configuration(server: Server, primary: int) -> list[str]:
    return [
        f"port {server.port}",
        f"bind {server.address}",
        f"requirepass {SENTINEL_PASSWORD}",
        f"sentinel monitor {NAME} {server.address} {primary} 2",
        f"sentinel auth-pass {NAME} {PASSWORD}",
        f"sentinel down-after-milliseconds {NAME} {int(DOWN_AFTER * 1000)}",
        f"sentinel failover-timeout {NAME} {int(FAILOVER_TIMEOUT * 1000)}",
        f"sentinel sentinel-pass {SENTINEL_PASSWORD}",
    ]
