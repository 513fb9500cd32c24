"""Three hosts on a network: Redis and S3, and two with workers. One is cut off, one dies, all are rolled.

`pytest -m long tests/acceptance/faults/test_several_nodes.py`, as root.
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
from support.faults import FAST, Faults, Node, progress, settle
from support.netns import Lab
from support.shared_workers import connected, placed, upload
from support.stack import Installation, make_bucket
from worker.contract import redis_keys
from worker.contract.ledger.jobs import Ledger
from worker.contract.outputs import OutputOptions
from worker.contract.settings import Settings

IMAGES, CHUNK = 200, 4
WHY_NOT = Lab.why_not()

pytestmark = [pytest.mark.long, pytest.mark.timeout(420), pytest.mark.skipif(bool(WHY_NOT), reason=str(WHY_NOT))]


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.open(["store", "one", "two"]) as lab:
        yield lab


@pytest.fixture
def installation(lab: Lab, cache: dict[str, str], tmp_path: Path) -> Iterator[Installation]:
    argv = [sys.executable, "-m", "support.netns_services", str(tmp_path / "services"), lab.addresses["store"]]
    more = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with lab.inside("store"):
        services = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=commands.environment(more)
        )
    try:
        assert services.stdout is not None
        environment = json.loads(services.stdout.readline())
        fast = FAST | cache | {"MASKMILL_REDIS__TIMEOUT_SECONDS": "2", "MASKMILL_S3__READ_TIMEOUT_SECONDS": "5"}
        found = placed(Installation({}, Settings(), "photographs"), environment | fast)
        with lab.inside("store"):
            make_bucket(found)
            yield found
    finally:
        services.communicate()


@contextlib.contextmanager
def node(lab: Lab, host: str, installation: Installation, faults: Faults, log: Path) -> Iterator[Node]:
    """`worker start` on a host until the block ends; begins once it has loaded its model."""
    with lab.inside(host), log.open("ab") as file:
        process = subprocess.Popen(
            lab.named(host, [str(commands.BIN / "worker"), "start"]),
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
    """The power fails: everything at once."""
    family = [psutil.Process(node.pid), *commands.descendants(node.pid)]
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def busy(ledger: Ledger, job: str) -> set[str]:
    """Hosts that run a chunk of a job."""
    running = ledger.link.client.hvals(redis_keys.job_keys(ledger.link.prefix, job).running)
    return {worker.rpartition("@")[2] for worker in running}


def queued_schemas(ledger: Ledger) -> list[int]:
    """`schema_version` of every message that waits."""
    found = []
    for queue in redis_keys.QUEUES:
        for text in ledger.link.client.lrange(redis_keys.queue(ledger.link.prefix, queue), 0, -1):
            body = base64.b64decode(json.loads(text)["body"])
            found.append(json.loads(zlib.decompress(body))[0][0]["schema_version"])
    return found


def test_a_job_outlives_a_cut_a_death_and_a_roll(lab, installation, tmp_path):
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
        first.enter_context(node(lab, "one", installation, now, logs["one"]))
        two = stack.enter_context(node(lab, "two", installation, now, logs["two"]))
        with connected(installation, CHUNK) as submitter:
            source, dest = (f"s3://{installation.bucket}/{folder}/" for folder in ("in", "out"))
            job = submitter.submit(source, dest, OutputOptions()).view.job
        commands.wait_for(lambda: busy(ledger, job) == {"one", "two"}, "both to work")

        lab.cut("one")
        commands.wait_for(lambda: "one" not in busy(ledger, job), "the chunks of the one to be given to the other")
        without = ledger.view(job).done
        progress(ledger, job, without + 2 * CHUNK)

        lab.heal("one")
        commands.wait_for(lambda: "one" in busy(ledger, job), "the one to work again", 90)

        kill(two)
        progress(ledger, job, ledger.view(job).done + 2 * CHUNK, 90)

        assert 1 in queued_schemas(ledger), "the roll is to meet messages of the release before"
        stack.enter_context(node(lab, "two", installation, later, logs["two-later"]))
        commands.wait_for(lambda: busy(ledger, job) == {"one", "two"}, "both releases to work side by side", 90)
        before = ledger.view(job).done
        first.close()
        stack.enter_context(node(lab, "one", installation, later, logs["one-later"]))
        commands.wait_for(
            lambda: 2 in queued_schemas(ledger) or ledger.view(job).ended, "messages of the next release", 60
        )
        assert before < IMAGES, "the job is too short for this test"
        account = settle(installation, job, now, seconds=150)
    print(f"{account.view.done} of {IMAGES} images, {account.repeated} of them begun again, none lost")  # noqa: T201
    assert account.view.ok == IMAGES
