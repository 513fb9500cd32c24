"""The network between workers and Redis fails while Redis is well: packets dropped, connections half-open."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from support import commands
from support.faults import IN_FLIGHT, LEASE_BACK_WITHIN, RECONCILED_WITHIN, SILENCE, SLACK, Faults, progress
from support.proxy import Proxy
from support.shared_workers import BACK_OFF, Mistreated, installation_at, own_redis, placed
from support.stack import Installation
from worker.contract.ledger.jobs import Ledger
from worker.standalone.services import Standalone
from worker.standalone.valkey import Valkey

IMAGES, CHUNK = 40, 5
TIMEOUT, HEALTH = 1.5, 1
HALF_OPEN_WITHIN = 1 + 2 * HEALTH
"""A BRPOP of one second and two health checks: 21 s with the product's interval of 10 s."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with own_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def line(server: Valkey) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def near(standalone: Standalone, cache: dict[str, str], server: Valkey) -> Installation:
    """Straight to Redis."""
    return installation_at(standalone, server.url, cache | {"MASKMILL_REDIS__TIMEOUT_SECONDS": str(TIMEOUT)})


@pytest.fixture(scope="module")
def workers(near: Installation, line: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mistreated]:
    """Their way to Redis is the line; the test's own is not."""
    folder = tmp_path_factory.mktemp("workers")
    faults = Faults(folder, image_seconds=0.2, celery={"broker_transport_options": {"health_check_interval": HEALTH}})
    far = placed(near, {"MASKMILL_REDIS__URL": line.url(near.settings.redis.url)})
    with Mistreated.start(far, faults, folder / "worker.log") as workers:
        workers.installation = near
        yield workers


@pytest.fixture
def under(workers: Mistreated, line: Proxy) -> Iterator[Mistreated]:
    before = workers.processes()
    assert len(before) == 3
    (workers.faults.folder / "executions").unlink(missing_ok=True)
    yield workers
    line.heal()
    assert workers.processes() == before, "a process ended and was started again"


def under_way(under: Mistreated) -> str:
    job = under.job(IMAGES, chunk=CHUNK)
    with Ledger(under.installation.settings.redis) as ledger:
        progress(ledger, job, 3)
    return job


@pytest.mark.parametrize(
    "seconds", [pytest.param(3 * TIMEOUT, id="short"), pytest.param(60, id="minute", marks=pytest.mark.long)]
)
def test_dropped_packets_stop_the_workers_only_while_they_last(under, line, seconds):
    job = under_way(under)

    line.stall()
    time.sleep(TIMEOUT)
    with Ledger(under.installation.settings.redis) as ledger:
        reached = ledger.view(job).done
        time.sleep(seconds - TIMEOUT)
        assert ledger.view(job).done == reached < IMAGES, "something got through: the test proves nothing"
    line.heal()

    assert under.consuming(job) <= BACK_OFF
    account = under.settle(job)
    assert account.view.ok == IMAGES
    assert account.repeated <= CHUNK + IN_FLIGHT


def test_half_open_connections_are_found(under, line):
    job = under_way(under)

    line.forget()

    assert under.consuming(job) <= TIMEOUT + HALF_OPEN_WITHIN + BACK_OFF
    account = under.settle(job)
    assert account.view.ok == IMAGES


@pytest.mark.long
def test_a_reply_that_goes_to_a_dead_socket_takes_its_message_along_and_it_is_published_again(under, line):
    """Redis pops for a worker that is not there any more; no lease was ever written for that message."""
    time.sleep(0.5)
    line.forget()  # while every worker waits for work

    job = under.job(IMAGES, chunk=CHUNK)

    assert under.consuming(job) <= HALF_OPEN_WITHIN + RECONCILED_WITHIN + BACK_OFF
    assert under.settle(job).view.ok == IMAGES


def test_a_cut_longer_than_the_lease(near, line, cache, tmp_path):
    """The chunk is run elsewhere; what its first worker has to say afterwards changes no count."""
    far = placed(near, {"MASKMILL_REDIS__URL": line.url(near.settings.redis.url), "MASKMILL_REDIS__PREFIX": "cut:"})
    near = placed(near, {"MASKMILL_REDIS__PREFIX": "cut:"})
    faults = Faults(tmp_path, image_seconds=0.5)
    there = Mistreated(near, faults, None, tmp_path / "worker.log")
    job = there.job(8, chunk=8, folder="cut")
    with Ledger(near.settings.redis) as ledger, alone(far, faults, "worker-7", there.log) as zombie:
        progress(ledger, job, 1)
        line.stall()
        reached = ledger.view(job).done
        assert reached < 8
        with steward(near, faults, there.log), alone(near, faults, "worker-8", there.log):
            commands.wait_for(
                lambda: ledger.view(job).done > reached,
                "the chunk to be run elsewhere",
                LEASE_BACK_WITHIN + SILENCE + RECONCILED_WITHIN + SLACK,
            )
            line.heal()
            account = there.settle(job)
            time.sleep(2)  # the first worker's own answers arrive now
            assert zombie.is_running()
            assert ledger.view(job).model_copy(update={"core_seconds": 0, "models": {}}) == account.view.model_copy(
                update={"core_seconds": 0, "models": {}}
            )
    assert account.view.ok == 8
    assert account.executions.total() > 8, "nothing was run twice: the test proves nothing"


@contextlib.contextmanager
def alone(installation: Installation, faults: Faults, name: str, log) -> Iterator[psutil.Process]:
    """One worker process without supervisor and steward, under a name of its own."""
    more = {"MASKMILL_WORKER__PROCESS_NAME": name, "MASKMILL_PLAN__STREAMS": "1", "MASKMILL_PLAN__THREADS": "1"}
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    argv = ["celery", "--quiet", "-A", "worker.app", "worker", "--hostname", f"{name}@test", *quiet]
    with _process(argv, installation.environment | more | faults.environment(), log) as process:
        yield process


@contextlib.contextmanager
def steward(installation: Installation, faults: Faults, log) -> Iterator[psutil.Process]:
    with _process(["worker.steward.process"], installation.environment | faults.environment(), log) as process:
        yield process


@contextlib.contextmanager
def _process(module: list[str], settings: dict[str, str], log) -> Iterator[psutil.Process]:
    with log.open("ab") as file:
        process = psutil.Popen(
            [sys.executable, "-m", *module], env=commands.environment(settings), stdout=file, stderr=file
        )
    try:
        yield process
    finally:
        below = process.children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
        commands.wait_for(lambda: not [child for child in below if child.is_running()], "its children to end", 10)
