"""What the nodes of a run work with: a network, Redis alone or behind Sentinels, and S3 behind the proxy."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from chaos.nodes import Node
from chaos.s3_log import S3Log
from support.installation import Installation, load_settings, make_bucket, new_installation
from support.netns import HostNetwork
from support.sentinels import SentinelSet, sentinel_set
from worker.standalone.services import Standalone

RedisKind = Literal["single", "sentinels"]

_STORE = "store"
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Cluster:
    """The services of a run, and the network between them and the nodes."""

    services: Standalone
    """Their Redis is not used behind Sentinels."""
    sentinels: SentinelSet | None
    network: HostNetwork | None
    """None: everything is on the loopback."""
    s3_log: S3Log
    installation: Installation
    """The settings are those of this process, whose own S3 requests do not pass the proxy."""

    def node(self, name: str, log: Path) -> Node:
        """Return a node that is not started yet."""
        network = self.network
        return Node(name, self.installation.environment, log, inside=None if network is None else network.inside)

    def processes(self, nodes: Sequence[Node]) -> dict[str, list[psutil.Process]]:
        """Return all processes of the run by role."""
        found = {
            "supervisor": [process for node in nodes for process in node.supervisor()],
            "consumer": [process for node in nodes for _, process in node.consumers()],
            "model_process": [process for node in nodes for _, process in node.model_processes()],
            "steward": [process for node in nodes for process in node.stewards()],
        }
        pids = {name: [pid] for name, pid in self.services.pids.items()}
        if self.sentinels is not None:
            running = [server.process for server in self.sentinels.data if server.process is not None]
            pids["redis"] = [process.pid for process in running if process.poll() is None]
        return found | {name: _existing(ids) for name, ids in pids.items()}


@contextlib.contextmanager
def cluster(
    output: Path,
    kind: RedisKind,
    hosts: Sequence[str],
    settings: Mapping[str, str],
    *,
    seed: int,
    wait_replicas: int = 1,
) -> Iterator[Cluster]:
    """Run the services of a chaos run; this thread is on the host of the services during the block.

    Args:
        output: folder of the run.
        kind: `sentinels` also puts each node on a host of its own, where this machine permits it.
        hosts: names of the nodes.
        settings: of all processes.
        seed: of the trouble of S3.
        wait_replicas: that must have a job before it counts as submitted, behind Sentinels.
    """
    with contextlib.ExitStack() as stack:
        network, address = None, _LOOPBACK
        if kind == "sentinels" and HostNetwork.unavailable() is None:
            network = stack.enter_context(HostNetwork.open([_STORE, *hosts]))
            address = network.addresses[_STORE]
            stack.enter_context(network.inside(_STORE))
        services = stack.enter_context(Standalone(output / "services"))
        servers = None
        if kind == "sentinels":
            folder = output / f"redis-{secrets.token_hex(3)}"
            servers = stack.enter_context(sentinel_set(folder, address=address, clocks=True))
        s3_log = stack.enter_context(S3Log(services.s3_endpoint, address, seed))
        created = new_installation(services)
        make_bucket(created)
        shared = created.environment | settings
        if servers is not None:
            shared |= servers.environment() | {"MASKMILL_REDIS__WAIT_REPLICAS": str(wait_replicas)}
        shared |= {"MASKMILL_MODEL__CACHE_DIR": str(output / "cache")}
        environment = shared | {"MASKMILL_S3__ENDPOINT_URL": s3_log.endpoint}
        installation = Installation(environment, load_settings(shared), created.bucket)
        yield Cluster(services, servers, network, s3_log, installation)


def _existing(pids: Sequence[int]) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
