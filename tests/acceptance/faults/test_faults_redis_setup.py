"""A Redis that cannot be used (wrong password, too old, a Cluster) is refused with a clear message."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from support import commands
from support.fault_injection import Faults
from support.installation import Installation
from support.job_account import progress
from support.proxy import Proxy
from support.shared_workers import SharedWorkers, client, installation_at, own_redis
from worker.contract.ledger.jobs import Ledger
from worker.standalone import ports, valkey
from worker.standalone.valkey import Valkey


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with own_redis(tmp_path) as server:
        yield server


COMMANDS = {
    "submit": ("producer", "submit", "s3://{bucket}/in/", "s3://{bucket}/out/"),
    "check": ("worker", "check"),
    "start": ("worker", "start"),
}


def assert_refused(installation: Installation, *texts: str, by: tuple[str, ...] = tuple(COMMANDS)) -> None:
    """Assert that the commands end at once with a message that contains `texts`, and that no node process starts."""
    for name in by:
        done = commands.run(
            COMMANDS[name][0],
            *(word.format(bucket=installation.bucket) for word in COMMANDS[name][1:]),
            settings=installation.environment,
        )
        output = done.out + done.err
        assert done.code == 1, (name, output)
        assert all(text in output for text in texts), output
        assert "Traceback" not in output
        assert "event=process_started" not in output


def test_a_wrong_password_is_refused_at_once(standalone, cache, server):
    assert_refused(installation_at(standalone, server.url, cache, password="another"), "MASKMILL_REDIS__PASSWORD")


def test_a_redis_that_is_too_old_is_refused(standalone, cache, server):
    with Proxy(server.port) as proxy:
        proxy.edit = lambda block: block.replace(b"redis_version:7.2.4", b"redis_version:6.0.9")
        installation = installation_at(standalone, proxy.url(server.url), cache)

        assert_refused(installation, "6.0.9", "6.2 or later", by=("submit", "start"))


def test_a_redis_that_may_evict_is_refused(standalone, cache, server):
    installation = installation_at(standalone, server.url, cache)
    with client(installation) as redis_client:
        redis_client.config_set("maxmemory-policy", "allkeys-lru")

    assert_refused(installation, "noeviction", "allkeys-lru", by=("start",))


def test_a_cluster_is_refused(standalone, cache, tmp_path):
    port = ports.choose({"redis": (0,)})["redis"]
    with (tmp_path / "cluster.log").open("wb") as log:
        server = subprocess.Popen(
            [str(valkey.server_program()), "--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes"],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
        )
    try:
        with redis.Redis(port=port) as redis_client:
            commands.wait_for(lambda: alive(redis_client), "the node of the cluster to answer", 20)
        installation = installation_at(standalone, f"redis://127.0.0.1:{port}/0", cache, password="")

        assert_refused(installation, "Redis Cluster", "plain Redis", by=("submit", "start"))
    finally:
        server.terminate()
        server.wait()


def alive(redis_client: redis.Redis) -> bool:
    try:
        return bool(redis_client.ping())
    except redis.ConnectionError:
        return False


@pytest.mark.long
def test_a_changed_password_loses_no_image(standalone, cache, server, tmp_path):
    installation = installation_at(standalone, server.url, cache | {"MASKMILL_REDIS__TIMEOUT_SECONDS": "2"})
    with SharedWorkers.start(installation, Faults(tmp_path, image_seconds=0.2), tmp_path / "worker.log") as workers:
        job = workers.submit(30, chunk=5)
        with Ledger(installation.settings.redis) as ledger:
            progress(ledger, job, 3)
        with client(installation) as redis_client:
            redis_client.config_set("requirepass", "another")
            redis_client.client_kill_filter(_type="normal", skipme=True)
            time.sleep(4)
            done = commands.run("producer", "status", job, settings=installation.environment)
            redis_client.config_set("requirepass", installation.settings.redis.password.get_secret_value())

        assert done.code == 1 and "MASKMILL_REDIS__PASSWORD" in done.err
        assert workers.seconds_to_progress(job, 60) <= 60
        assert workers.settle(job).view.ok == 30
        assert "MASKMILL_REDIS__PASSWORD" in workers.log.read_text()
        assert installation.settings.redis.password.get_secret_value() not in workers.log.read_text()
