"""Three hosts: one with Redis and S3, two with workers. One is disconnected, one dies, both are upgraded.

Needs root: `pytest -m long tests/acceptance/faults/test_several_nodes.py`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support import commands
from support.fault_injection import Faults
from support.fault_timing import FAST
from support.installation import Installation, make_bucket
from support.job_account import progress, settle
from support.netns import HostNetwork
from support.node_processes import Node
from support.small_jobs import connected_submitter, upload
from worker.contract import redis_keys
from worker.contract.ledger.jobs import Ledger
from worker.contract.outputs import OutputOptions
from worker.contract.settings import Settings

IMAGES, CHUNK = 200, 4
UNAVAILABLE = HostNetwork.unavailable()

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(420),
    pytest.mark.skipif(bool(UNAVAILABLE), reason=str(UNAVAILABLE)),
]


@pytest.fixture
def network() -> Iterator[HostNetwork]:
    with HostNetwork.open(["store", "one", "two"]) as network:
        yield network


@pytest.fixture
def installation(network: HostNetwork, cache: dict[str, str], tmp_path: Path) -> Iterator[Installation]:
    argv = [sys.executable, "-m", "support.netns_services", str(tmp_path / "services"), network.addresses["store"]]
    more = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with network.inside("store"):
        services = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=commands.environment(more)
        )
    try:
        assert services.stdout is not None
        environment = json.loads(services.stdout.readline())
        fast = FAST | cache | {"MASKMILL_REDIS__TIMEOUT_SECONDS": "2", "MASKMILL_S3__READ_TIMEOUT_SECONDS": "5"}
        found = Installation({}, Settings(), "photographs").with_settings(environment | fast)
        with network.inside("store"):
            make_bucket(found)
            yield found
    finally:
        services.communicate()


@contextlib.contextmanager
def node(network: HostNetwork, host: str, installation: Installation, faults: Faults, log: Path) -> Iterator[Node]:
    """Run `worker start` on a host; the block starts once it has loaded its model."""
    with network.inside(host), log.open("ab") as file:
        process = subprocess.Popen(
            network.with_hostname(host, [str(commands.BIN / "worker"), "start"]),
            env=commands.environment(installation.environment | faults.environment()),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        commands.wait_for(lambda: "event=model_loaded" in log.read_text(), f"the model on {host}", 90)
        yield Node(process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        process.wait(60)


def kill(node: Node) -> None:
    """Kill all processes of a node at once, like a power failure."""
    family = [psutil.Process(node.pid), *commands.descendants(node.pid)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def busy(ledger: Ledger, job: str) -> set[str]:
    """Return the hosts that run a chunk of a job."""
    running = ledger.connection.client.hvals(redis_keys.job_keys(ledger.connection.prefix, job).running)
    return {worker.rpartition("@")[2] for worker in running}


def queued_schemas(ledger: Ledger) -> list[int]:
    """Return the `schema_version` of every queued message."""
    found = []
    for queue in redis_keys.QUEUES:
        for text in ledger.connection.client.lrange(redis_keys.queue(ledger.connection.prefix, queue), 0, -1):
            body = base64.b64decode(json.loads(text)["body"])
            found.append(json.loads(zlib.decompress(body))[0][0]["schema_version"])
    return found


def test_a_job_survives_a_partition_a_dead_host_and_a_rolling_upgrade(network, installation, tmp_path):
    now, later = (
        Faults(tmp_path / "faults", image_seconds=1.0),
        Faults(tmp_path / "faults", image_seconds=1.0, schema=2),
    )
    upload(installation, IMAGES, "in")
    logs = {name: tmp_path / f"{name}.log" for name in ("one", "two", "one-later", "two-later")}
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(Ledger(installation.settings.redis))
        first = contextlib.ExitStack()
        stack.push(first)
        first.enter_context(node(network, "one", installation, now, logs["one"]))
        two = stack.enter_context(node(network, "two", installation, now, logs["two"]))
        with connected_submitter(installation, CHUNK) as submitter:
            source, dest = (f"s3://{installation.bucket}/{folder}/" for folder in ("in", "out"))
            job = submitter.submit(source, dest, OutputOptions()).view.job
        commands.wait_for(lambda: busy(ledger, job) == {"one", "two"}, "both hosts to run chunks")

        network.cut("one")
        commands.wait_for(lambda: "one" not in busy(ledger, job), "the other host to take over the chunks")
        without = ledger.view(job).done
        progress(ledger, job, without + 2 * CHUNK)

        network.heal("one")
        commands.wait_for(lambda: "one" in busy(ledger, job), "the reconnected host to run chunks", 90)

        kill(two)
        progress(ledger, job, ledger.view(job).done + 2 * CHUNK, 90)

        assert 1 in queued_schemas(ledger), "the new release must meet messages of the old one"
        stack.enter_context(node(network, "two", installation, later, logs["two-later"]))
        commands.wait_for(lambda: busy(ledger, job) == {"one", "two"}, "both releases to run chunks", 90)
        before = ledger.view(job).done
        first.close()
        stack.enter_context(node(network, "one", installation, later, logs["one-later"]))
        commands.wait_for(
            lambda: 2 in queued_schemas(ledger) or ledger.view(job).ended, "messages of the next release", 60
        )
        assert before < IMAGES, "the job is too short for this test"
        account = settle(installation, job, now, seconds=150)
    print(f"{account.view.done} of {IMAGES} images, {account.repeated} of them begun again, none lost")  # noqa: T201
    assert account.view.ok == IMAGES
