"""Redis fails over to another primary, in every way: workers, steward and producers follow it, and no image is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from support import commands
from support.fault_injection import Faults
from support.fault_timing import IN_FLIGHT
from support.sentinels import SentinelSet, sentinel_set
from support.shared_workers import SharedWorkers, installation_at
from worker.contract import redis_keys
from worker.contract.ledger.jobs import Ledger
from worker.contract.queue import admission
from worker.contract.queue.celery_app import make_celery
from worker.standalone.services import Standalone

IMAGES, CHUNK = 40, 5


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSet]:
    with sentinel_set(tmp_path_factory.mktemp("redis")) as servers:
        yield servers


@pytest.fixture(scope="module")
def shared_workers(
    standalone: Standalone, cache: dict[str, str], servers: SentinelSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedWorkers]:
    folder = tmp_path_factory.mktemp("workers")
    installation = installation_at(standalone, servers.url, cache | servers.environment())
    with SharedWorkers.start(installation, Faults(folder, image_seconds=0.2), folder / "worker.log") as workers:
        yield workers


@pytest.fixture
def workers(shared_workers: SharedWorkers, servers: SentinelSet) -> Iterator[SharedWorkers]:
    """The shared workers; their processes must survive the test."""
    assert len(shared_workers.node.pids()) == 3, "one consumer, one model process, one steward"
    servers.heal()
    shared_workers.faults.clear_executions()
    with shared_workers.surviving():
        yield shared_workers


@pytest.mark.parametrize("how", ["kill", "freeze", "coordinated", "forced"])
def test_a_job_outlives_its_primary(workers, servers, how):
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)

    servers.fail_over(how)
    workers.seconds_to_progress(job)

    account = workers.settle(job)
    assert account.view.ok == IMAGES
    if how != "forced":  # the old primary acknowledges on, and all of that is lost
        assert account.repeated <= 2 * CHUNK + IN_FLIGHT


def test_messages_are_still_checked_after_a_failover(workers, servers):
    """Without care, kombu would go on with a transport of its own after the first failed attempt to connect."""
    with make_celery(workers.installation.settings) as celery, celery.connection_for_write() as connection:
        connection.ensure_connection()
        servers.fail_over("kill")
        connection.ensure_connection(max_retries=3)
        assert type(connection.transport) is admission.Transport
        assert type(connection.default_channel) is admission.Channel
    refused = workers.log.read_text().count("event=message_refused")

    prefix = workers.installation.settings.redis.prefix
    with Ledger(workers.installation.settings.redis) as ledger:
        hostile = json.dumps({"body": "", "headers": {"task": "os.system"}, "properties": {}})
        ledger.connection.client.lpush(redis_keys.queue(prefix, redis_keys.QUEUE), hostile)

    commands.wait_for(
        lambda: workers.log.read_text().count("event=message_refused") == refused + 1, "the message to be refused", 15
    )
    connected = re.findall(r"(?:Connected|Cannot connect) to (\S+)://", workers.log.read_text())
    assert set(connected) == {"worker.contract.queue.admission:Transport"}, "kombu's own transport was used"
