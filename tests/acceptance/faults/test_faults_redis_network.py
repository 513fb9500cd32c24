"""The network between workers and Redis fails while Redis works: dropped packets, half-open connections."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from support import commands
from support.fault_injection import Faults
from support.fault_timing import IN_FLIGHT, LEASE_BACK_WITHIN, RECONCILED_WITHIN, SILENCE, SLACK
from support.installation import Installation
from support.job_account import progress
from support.proxy import Proxy
from support.shared_workers import BACK_OFF, SharedWorkers, installation_at, own_redis
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
def proxy(server: Valkey) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def direct(standalone: Standalone, cache: dict[str, str], server: Valkey) -> Installation:
    """An installation that reaches Redis without the proxy."""
    return installation_at(standalone, server.url, cache | {"MASKMILL_REDIS__TIMEOUT_SECONDS": str(TIMEOUT)})


@pytest.fixture(scope="module")
def shared_workers(
    direct: Installation, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedWorkers]:
    """Workers that reach Redis through the proxy, while the test reaches it directly."""
    folder = tmp_path_factory.mktemp("workers")
    faults = Faults(folder, image_seconds=0.2, celery={"broker_transport_options": {"health_check_interval": HEALTH}})
    proxied = direct.with_settings({"MASKMILL_REDIS__URL": proxy.url(direct.settings.redis.url)})
    with SharedWorkers.start(proxied, faults, folder / "worker.log") as workers:
        workers.installation = direct
        yield workers


@pytest.fixture
def workers(shared_workers: SharedWorkers, proxy: Proxy) -> Iterator[SharedWorkers]:
    """The shared workers; their processes must survive the test."""
    assert len(shared_workers.node.pids()) == 3, "one consumer, one model process, one steward"
    shared_workers.faults.clear_executions()
    with shared_workers.surviving():
        yield shared_workers
        proxy.heal()


@pytest.mark.parametrize(
    "seconds", [pytest.param(3 * TIMEOUT, id="short"), pytest.param(60, id="minute", marks=pytest.mark.long)]
)
def test_dropped_packets_stop_the_workers_only_while_they_last(workers, proxy, seconds):
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)

    proxy.stall()
    time.sleep(TIMEOUT)
    with Ledger(workers.installation.settings.redis) as ledger:
        reached = ledger.view(job).done
        time.sleep(seconds - TIMEOUT)
        assert ledger.view(job).done == reached < IMAGES, "something got through: the test proves nothing"
    proxy.heal()

    assert workers.seconds_to_progress(job) <= BACK_OFF
    account = workers.settle(job)
    assert account.view.ok == IMAGES
    assert account.repeated <= CHUNK + IN_FLIGHT


def test_half_open_connections_are_detected(workers, proxy):
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)

    proxy.make_half_open()

    assert workers.seconds_to_progress(job) <= TIMEOUT + HALF_OPEN_WITHIN + BACK_OFF
    account = workers.settle(job)
    assert account.view.ok == IMAGES


@pytest.mark.long
def test_a_message_popped_for_a_dead_connection_is_published_again(workers, proxy):
    """Redis pops it for a worker that no longer listens, so no lease is ever written for it."""
    time.sleep(0.5)
    proxy.make_half_open()  # while every worker waits for work

    job = workers.submit(IMAGES, chunk=CHUNK)

    assert workers.seconds_to_progress(job) <= HALF_OPEN_WITHIN + RECONCILED_WITHIN + BACK_OFF
    assert workers.settle(job).view.ok == IMAGES


def test_a_partition_longer_than_the_lease(direct, proxy, cache, tmp_path):
    """Another worker runs the chunk; late outcomes of the first worker change no count."""
    direct = direct.with_settings({"MASKMILL_REDIS__PREFIX": "cut:"})
    proxied = direct.with_settings({"MASKMILL_REDIS__URL": proxy.url(direct.settings.redis.url)})
    faults = Faults(tmp_path, image_seconds=0.5)
    workers = SharedWorkers(direct, faults, None, tmp_path / "worker.log")
    job = workers.submit(8, chunk=8, folder="cut")
    with Ledger(direct.settings.redis) as ledger, single_worker(proxied, faults, "worker-7", workers.log) as first:
        progress(ledger, job, 1)
        proxy.stall()
        reached = ledger.view(job).done
        assert reached < 8
        with steward(direct, faults, workers.log), single_worker(direct, faults, "worker-8", workers.log):
            commands.wait_for(
                lambda: ledger.view(job).done > reached,
                "another worker to run the chunk",
                LEASE_BACK_WITHIN + SILENCE + RECONCILED_WITHIN + SLACK,
            )
            proxy.heal()
            account = workers.settle(job)
            time.sleep(2)  # the outcomes of the first worker arrive now
            assert first.is_running()
            assert ledger.view(job).model_copy(update={"core_seconds": 0, "models": {}}) == account.view.model_copy(
                update={"core_seconds": 0, "models": {}}
            )
    assert account.view.ok == 8


@contextlib.contextmanager
def single_worker(installation: Installation, faults: Faults, name: str, log) -> Iterator[psutil.Process]:
    """Run one consumer named `name`, without supervisor and steward."""
    more = {"MASKMILL_WORKER__PROCESS_NAME": name, "MASKMILL_PLAN__STREAMS": "1", "MASKMILL_PLAN__THREADS": "1"}
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    argv = ["celery", "--quiet", "-A", "worker.app", "worker", "--hostname", f"{name}@test", *quiet]
    with _process(argv, installation.environment | more | faults.environment(), log) as process:
        yield process


@contextlib.contextmanager
def steward(installation: Installation, faults: Faults, log) -> Iterator[psutil.Process]:
    """Run a steward without a supervisor."""
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
        descendants = process.children(recursive=True) if process.poll() is None else []
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait()
        commands.wait_for(lambda: not [child for child in descendants if child.is_running()], "its children to end", 10)
