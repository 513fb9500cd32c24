"""Redis is restarted, killed, paused, made a replica, filled and emptied. Workers survive and no image is lost."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
import redis

from support import commands
from support.fault_injection import Faults
from support.fault_timing import IN_FLIGHT
from support.shared_workers import BACK_OFF, SharedWorkers, client, installation_at, own_redis
from worker.contract.errors import JobNotFound
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue.celery_app import make_celery
from worker.standalone.services import Standalone
from worker.standalone.valkey import Valkey

IMAGES, CHUNK = 40, 5
TIMEOUT = 1.5
"""Time-out of a single command, in seconds (15 by default)."""
FAILOVER = 6.0
"""Seconds for which a call is repeated while Redis refuses it (30 by default): longer than all outages but one."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with own_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def shared_workers(
    standalone: Standalone, cache: dict[str, str], server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedWorkers]:
    folder = tmp_path_factory.mktemp("workers")
    times = {"MASKMILL_REDIS__TIMEOUT_SECONDS": str(TIMEOUT), "MASKMILL_REDIS__FAILOVER_SECONDS": str(FAILOVER)}
    installation = installation_at(standalone, server.url, cache | times)
    with SharedWorkers.start(installation, Faults(folder, image_seconds=0.2), folder / "worker.log") as workers:
        yield workers


@pytest.fixture
def workers(shared_workers: SharedWorkers, server: Valkey) -> Iterator[SharedWorkers]:
    """The shared workers; their processes must survive the test."""
    assert len(shared_workers.node.pids()) == 3, "one consumer, one model process, one steward"
    shared_workers.faults.clear_executions()
    with shared_workers.surviving():
        yield shared_workers
        if not server.running:
            server.start()


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_redis_comes_back_from_its_append_only_file(workers, server, how):
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)

    (server.stop if how == "restart" else server.kill)()
    time.sleep(1)
    server.start()

    assert workers.seconds_to_progress(job) <= BACK_OFF
    account = workers.settle(job)
    assert account.view.ok == IMAGES
    assert account.repeated <= CHUNK + IN_FLIGHT


def test_repeatedly_killed_connections_cost_only_time(workers):
    kills, pause = 8, 0.4
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)
    consumer = psutil.Process(workers.node.consumers()[0].pid)
    files = consumer.num_fds()

    with client(workers.installation) as redis_client:
        for _ in range(kills):
            redis_client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(pause)
        redis_client.client_kill_filter(_type="pubsub", skipme=True)

    assert workers.seconds_to_progress(job) <= BACK_OFF
    account = workers.settle(job)
    assert account.view.ok == IMAGES, "a healthy chunk was taken for poison"
    assert account.repeated <= kills * CHUNK
    assert consumer.num_fds() < files + kills // 2, "connections are left open"
    commands.wait_for(lambda: answers_ping(workers), "the worker to answer a ping", 30)


def answers_ping(workers: SharedWorkers) -> bool:
    with make_celery(workers.installation.settings, client_name="maskmill-ping") as celery:
        return len(celery.control.inspect(timeout=2).ping() or {}) == 1


def test_writes_that_exceed_the_command_timeout_lose_nothing(workers):
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)

    with client(workers.installation) as redis_client:
        redis_client.execute_command("CLIENT", "PAUSE", int(3 * TIMEOUT * 1000), "WRITE")
    time.sleep(3 * TIMEOUT)

    assert workers.seconds_to_progress(job) <= BACK_OFF
    assert workers.settle(job).view.ok == IMAGES


def test_workers_survive_a_failover(workers):
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)

    with client(workers.installation) as redis_client:
        make_replica(redis_client, seconds=3)

    assert workers.seconds_to_progress(job) <= BACK_OFF
    account = workers.settle(job)
    assert account.view.ok == IMAGES
    assert account.repeated <= CHUNK + IN_FLIGHT


def test_control_without_the_retry_a_failover_ends_the_worker(standalone, cache, server, tmp_path):
    """Control of the test above: `broker_channel_error_retry` is off, and refusals are errors of the channel."""
    installation = installation_at(standalone, server.url, cache)
    faults = Faults(tmp_path, off=["demoted"], celery={"broker_channel_error_retry": False})
    with SharedWorkers.start(installation, faults, tmp_path / "worker.log") as workers:
        consumer = workers.node.consumers()[0]
        # Only a worker that waits for a message at that moment is hit, so it may take several failovers.
        end = time.monotonic() + 60
        with client(installation) as redis_client:
            while consumer.is_running() and time.monotonic() < end:
                make_replica(redis_client, seconds=2)
                with contextlib.suppress(psutil.TimeoutExpired):
                    consumer.wait(5)
        assert not consumer.is_running()
        commands.wait_for(
            lambda: "event=process_exited name=worker-0" in workers.log.read_text(), "its end to be logged", 10
        )


def make_replica(redis_client: redis.Redis, seconds: float) -> None:
    """Make Redis a replica without a master for `seconds`: BRPOP ends with UNBLOCKED, every write with READONLY."""
    redis_client.replicaof("127.0.0.1", "1")
    try:
        time.sleep(seconds)
        with pytest.raises(redis.exceptions.ReadOnlyError):
            redis_client.set("x", 1)
    finally:
        redis_client.replicaof("NO", "ONE")


def test_a_full_redis_refuses_writes_and_loses_nothing(workers):
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)
    with client(workers.installation) as redis_client:
        redis_client.config_set("maxmemory", 1_000_000)  # less than it uses, so every write is refused
        try:
            time.sleep(2)
            done = commands.run(
                "producer",
                "submit",
                f"s3://{workers.installation.bucket}/in/",
                f"s3://{workers.installation.bucket}/full/",
                settings=workers.installation.environment,
            )
            with Ledger(workers.installation.settings.redis) as ledger:
                stopped_at = ledger.view(job).done
                time.sleep(1)
                assert ledger.view(job).done == stopped_at < IMAGES, "nothing was refused: the test proves nothing"
        finally:
            redis_client.config_set("maxmemory", 0)

    assert done.code == 1
    assert "maxmemory" in done.err and "Traceback" not in done.err
    assert workers.seconds_to_progress(job) <= BACK_OFF
    assert workers.settle(job).view.ok == IMAGES


ENDLESS = "while true do end"


def test_an_endless_script_of_a_client_costs_the_time_until_it_is_killed(workers):
    """A producer's user may load and run scripts. Redis answers BUSY to all others, for longer than any call waits."""
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)
    with client(workers.installation) as redis_client, client(workers.installation, socket_timeout=60) as hostile:
        redis_client.config_set("busy-reply-threshold", 100)
        script = hostile.script_load(ENDLESS)
        thread, began = threading.Thread(target=_run_until_killed, args=(hostile, script)), time.monotonic()
        thread.start()
        try:
            time.sleep(3)
            done = commands.run("producer", "status", job, settings=workers.installation.environment)
            assert time.monotonic() - began > FAILOVER, "the workers' calls could wait it out: the test proves little"
        finally:
            redis_client.script_kill()
            thread.join()
            redis_client.config_set("busy-reply-threshold", 5000)

    assert (done.code, "takes no commands at the moment: BUSY" in done.err) == (1, True), done.err
    assert "error (broker_unavailable)" in done.err
    assert workers.seconds_to_progress(job) <= BACK_OFF
    assert workers.settle(job).view.ok == IMAGES


def _run_until_killed(hostile: redis.Redis, script: str) -> None:
    with pytest.raises(redis.exceptions.ResponseError, match="killed by user"):
        hostile.evalsha(script, 0)


def test_an_emptied_redis_is_rebuilt_from_s3(workers):
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)
    with Ledger(workers.installation.settings.redis) as ledger:
        dest = str(ledger.view(job).options.dest)

    with client(workers.installation) as redis_client:
        redis_client.flushall()
    lost = commands.run("producer", "status", job, settings=workers.installation.environment)
    done = commands.run(
        "producer", "recover", job, dest, "--wait", "--timeout", "90", settings=workers.installation.environment
    )

    assert lost.code == 1 and "no job" in lost.err
    assert done.code == 0, done.err
    account = workers.settle(job)
    assert account.view.ok == IMAGES, "outputs written before the loss count as this job's own"
    assert account.repeated <= CHUNK + IN_FLIGHT


def test_a_lost_redis_is_rebuilt_whole_while_workers_run(workers, server):
    """A new, empty server at the same address: two jobs go on, one that had ended is left alone."""
    ended = workers.submit(CHUNK, chunk=CHUNK, folder="few")
    workers.settle(ended)
    workers.faults.clear_executions()
    jobs = {workers.submit(IMAGES, chunk=CHUNK, folder="in-2"), workers.submit_and_start(IMAGES, chunk=CHUNK)}

    server.kill()
    shutil.rmtree(server.data)
    server.start()
    time.sleep(3)  # workers and steward find a server that knows no job
    place, settings = f"s3://{workers.installation.bucket}/", workers.installation.environment
    dry, done, again = (
        commands.run("producer", "recover", "--all", place, "--json", *more, settings=settings)
        for more in (["--dry-run"], [], [])
    )

    assert (dry.code, done.code, again.code) == (0, 0, 0), done.err
    for said in (dry, done):
        assert {line["job"] for line in said.lines[:-1] if line["finding"] == "recovered"} == jobs
        assert said.lines[-1]["total"] == 2 * IMAGES
    assert {line["job"] for line in again.lines[:-1] if line["finding"] == "in redis"} == jobs
    for job in jobs:
        account = workers.settle(job)
        assert account.view.ok + account.view.skipped == IMAGES
    assert account.executions.total() <= 2 * (IMAGES + CHUNK + IN_FLIGHT), "work was done again"
    with Ledger(workers.installation.settings.redis) as ledger, pytest.raises(JobNotFound):
        ledger.view(ended)
