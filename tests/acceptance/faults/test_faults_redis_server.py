"""Redis itself fails: restarted, killed, paused, made a replica, full, emptied. Workers live on, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest
import redis

from support import commands
from support.faults import IN_FLIGHT, Faults, progress
from support.shared_workers import BACK_OFF, Mistreated, client, installation_at, own_redis
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue.celery_app import make_celery
from worker.standalone.services import Standalone
from worker.standalone.valkey import Valkey

IMAGES, CHUNK = 40, 5
TIMEOUT = 1.5
"""Of a single command, in seconds (15 by default)."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with own_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def workers(
    standalone: Standalone, cache: dict[str, str], server: Valkey, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mistreated]:
    folder = tmp_path_factory.mktemp("workers")
    installation = installation_at(standalone, server.url, cache | {"MASKMILL_REDIS__TIMEOUT_SECONDS": str(TIMEOUT)})
    with Mistreated.start(installation, Faults(folder, image_seconds=0.2), folder / "worker.log") as workers:
        yield workers


@pytest.fixture
def under(workers: Mistreated, server: Valkey) -> Iterator[Mistreated]:
    """The workers, who must be the same ones afterwards."""
    before = workers.processes()
    assert len(before) == 3
    (workers.faults.folder / "executions").unlink(missing_ok=True)
    yield workers
    if not server.running:
        server.start()
    assert workers.processes() == before, "a process ended and was started again"


def under_way(under: Mistreated, count: int = IMAGES) -> str:
    """A job in the middle of its work."""
    job = under.job(count, chunk=CHUNK)
    with Ledger(under.installation.settings.redis) as ledger:
        progress(ledger, job, 3)
    return job


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_redis_comes_back_from_its_append_only_file(under, server, how):
    job = under_way(under)

    (server.stop if how == "restart" else server.kill)()
    time.sleep(1)
    server.start()

    assert under.consuming(job) <= BACK_OFF
    account = under.settle(job)
    assert account.view.ok == IMAGES
    assert account.repeated <= CHUNK + IN_FLIGHT


def test_connections_killed_in_a_row_cost_time_and_nothing_else(under):
    kills, pause = 8, 0.4
    job = under_way(under, IMAGES)
    parent = psutil.Process(under.node.parents()[0].pid)
    files = parent.num_fds()

    with client(under.installation) as redis_client:
        for _ in range(kills):
            redis_client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(pause)
        redis_client.client_kill_filter(_type="pubsub", skipme=True)

    assert under.consuming(job) <= BACK_OFF
    account = under.settle(job)
    assert account.view.ok == IMAGES, "a healthy chunk was taken for poison"
    assert account.repeated <= kills * CHUNK
    assert parent.num_fds() < files + kills // 2, "connections are left open"
    commands.wait_for(lambda: answers_ping(under), "the worker to answer a ping", 30)


def answers_ping(under: Mistreated) -> bool:
    with make_celery(under.installation.settings, client_name="maskmill-ping") as celery:
        return len(celery.control.inspect(timeout=2).ping() or {}) == 1


def test_writes_that_wait_longer_than_a_command_may(under):
    job = under_way(under)

    with client(under.installation) as redis_client:
        redis_client.execute_command("CLIENT", "PAUSE", int(3 * TIMEOUT * 1000), "WRITE")
    time.sleep(3 * TIMEOUT)

    assert under.consuming(job) <= BACK_OFF
    assert under.settle(job).view.ok == IMAGES


def test_a_failover_is_waited_for(under):
    job = under_way(under)

    with client(under.installation) as redis_client:
        flip(redis_client, seconds=3)

    assert under.consuming(job) <= BACK_OFF
    account = under.settle(job)
    assert account.view.ok == IMAGES
    assert account.repeated <= CHUNK + IN_FLIGHT


def test_without_the_retry_a_failover_ends_the_worker(standalone, cache, server, tmp_path):
    """The control run: what `broker_channel_error_retry` is for."""
    installation = installation_at(standalone, server.url, cache)
    faults = Faults(tmp_path, celery={"broker_channel_error_retry": False})
    with Mistreated.start(installation, faults, tmp_path / "worker.log") as under:
        parent = under.node.parents()[0]
        with client(installation) as redis_client:
            flip(redis_client, seconds=2)

        commands.wait_for(lambda: not parent.is_running(), "the worker to end", 30)
        commands.wait_for(
            lambda: "event=process_exited name=worker-0" in under.log.read_text(), "its end to be told", 10
        )


def flip(redis_client: redis.Redis, seconds: float) -> None:
    """A replica of nobody for a while: BRPOP is ended by UNBLOCKED, every write refused by READONLY."""
    redis_client.replicaof("127.0.0.1", "1")
    try:
        time.sleep(seconds)
        with pytest.raises(redis.exceptions.ReadOnlyError):
            redis_client.set("x", 1)
    finally:
        redis_client.replicaof("NO", "ONE")


def test_a_full_redis_refuses_and_forgets_nothing(under):
    job = under_way(under)
    with client(under.installation) as redis_client:
        redis_client.config_set("maxmemory", 1_000_000)  # less than it has: every write is refused
        try:
            time.sleep(2)
            done = commands.run(
                "producer",
                "submit",
                f"s3://{under.installation.bucket}/in/",
                f"s3://{under.installation.bucket}/full/",
                settings=under.installation.environment,
            )
            with Ledger(under.installation.settings.redis) as ledger:
                stopped_at = ledger.view(job).done
                time.sleep(1)
                assert ledger.view(job).done == stopped_at < IMAGES, "nothing was refused: the test proves nothing"
        finally:
            redis_client.config_set("maxmemory", 0)

    assert done.code == 1
    assert "maxmemory" in done.err and "Traceback" not in done.err
    assert under.consuming(job) <= BACK_OFF
    assert under.settle(job).view.ok == IMAGES


def test_an_emptied_redis_is_rebuilt_from_what_is_in_s3(under):
    job = under_way(under)
    with Ledger(under.installation.settings.redis) as ledger:
        dest = str(ledger.view(job).options.dest)

    with client(under.installation) as redis_client:
        redis_client.flushall()
    lost = commands.run("producer", "status", job, settings=under.installation.environment)
    done = commands.run(
        "producer", "recover", job, dest, "--wait", "--timeout", "90", settings=under.installation.environment
    )

    assert lost.code == 1 and "no job" in lost.err
    assert done.code == 0, done.err
    account = under.settle(job)
    assert account.view.ok == IMAGES, "what was made before is this job's own, whoever finds it"
    assert account.repeated <= CHUNK + IN_FLIGHT
