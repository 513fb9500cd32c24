"""Redis fails over to another primary, in every way: workers, steward and producers follow it, and no image is lost."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import time
from collections.abc import Iterator

import pytest

from support import commands
from support.fault_injection import Faults
from support.fault_run import run_concurrently
from support.fault_timing import IN_FLIGHT, SLOW
from support.installation import Installation
from support.job_account import progress, stuck
from support.sentinels import SentinelSet, sentinel_set
from support.shared_workers import SharedWorkers, installation_at
from worker.contract import redis_keys
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import Outcome
from worker.contract.queue import admission
from worker.contract.queue.celery_app import make_celery
from worker.contract.storage import jsonlines, outcome_log
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore
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
    installation = installation_at(standalone, servers.url, cache | servers.environment() | SLOW)
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


def test_a_stale_primary_that_comes_back_changes_nothing(workers, servers):
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)

    stale = servers.fail_over("freeze")
    workers.seconds_to_progress(job)
    stale.signal(signal.SIGCONT)

    account = workers.settle(job)
    assert account.view.ok == IMAGES
    assert account.repeated <= 2 * CHUNK + IN_FLIGHT


def test_a_primary_that_is_cut_off_accepts_nothing_that_would_be_lost(workers, servers):
    """With `min-replicas-to-write`. The replica is cut off, and no Sentinel sees a reason to act."""
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)
    with servers.demanding_replicas(), Ledger(workers.installation.settings.redis) as ledger:
        with servers.deaf_replica():
            stopped_at = ledger.view(job).done
            time.sleep(2)
            assert ledger.view(job).done == stopped_at < IMAGES, "nothing was refused: the test proves nothing"
        workers.seconds_to_progress(job)

    account = workers.settle(job)
    assert account.view.ok == IMAGES
    assert account.repeated <= 2 * CHUNK + IN_FLIGHT


@pytest.mark.parametrize("lost", ["outcomes", "end"])
def test_outcomes_that_the_new_primary_lacks_are_found_in_s3(workers, servers, lost):
    """The replica hears nothing for a while: all that is done meanwhile is gone from Redis after the failover."""
    job = workers.submit_and_start(IMAGES, chunk=CHUNK)
    with Ledger(workers.installation.settings.redis) as ledger:
        before = ledger.view(job).done
        with servers.deaf_replica():
            known = progress(ledger, job, IMAGES if lost == "end" else before + 2 * CHUNK).done
            commands.wait_for(lambda: lost == "outcomes" or ledger.view(job).ended, "the end of the job")
            servers.fail_over("kill")
        assert ledger.view(job).done < known, "nothing was lost: the test proves nothing"

        account = workers.settle(job)

    assert account.view.ok == IMAGES
    assert account.repeated <= CHUNK + IN_FLIGHT, "images were done again although their outputs exist"
    listed = [one.index for one in outcomes_of(workers.installation, job)]
    assert sorted(listed) == list(range(IMAGES)), "an image is missing from the lists, or in them twice"


def outcomes_of(installation: Installation, job: str) -> list[Outcome]:
    """Return the lines of the lists of a job without failures."""
    with Ledger(installation.settings.redis) as ledger, ObjectStore(installation.settings.s3) as store:
        dest = ledger.view(job).options.dest
        summary = outcome_log.read_json(store, dest, job, outcome_log.SUMMARY) or {}
        names = [name for name in summary["lists"] if name.endswith(".gz")]
        lines = [line for name in names for line in jsonlines.read_lines(store, job_folder(dest, job) / name)]
    return [Outcome.model_validate_json(line) for line in lines]


def test_worker_check_reports_the_sentinels_and_what_a_failover_may_lose(workers, servers):
    found = commands.run("worker", "check", "--json", settings=workers.installation.environment)

    lines = {line["check"]: line for line in found.lines}
    assert lines["failover"]["ok"], lines["failover"]
    text = lines["failover"]["text"]
    assert "3 of 3 Sentinels" in text and "quorum 2, each knows 2 others" in text
    assert "OK 3 usable Sentinels" in text and "1 of 1 connected replicas are in step" in text
    assert "WARNING: min-replicas-to-write is 0" in text

    demanding = workers.installation.environment | {"MASKMILL_REDIS__WAIT_REPLICAS": "2"}
    refused = {line["check"]: line for line in commands.run("worker", "check", "--json", settings=demanding).lines}
    assert not refused["failover"]["ok"] and "WAIT_REPLICAS is 2" in refused["failover"]["text"]


def test_a_producer_waits_for_the_new_primary(workers, servers):
    servers.fail_over("kill", wait=False)

    done = commands.run(
        "producer",
        "submit",
        f"s3://{workers.installation.bucket}/in/",
        f"s3://{workers.installation.bucket}/patient/",
        "--wait",
        "--json",
        settings=workers.installation.environment,
    )

    assert done.code == 0, done.err
    assert workers.settle(done.lines[0]["job"]).view.ok == IMAGES


def test_control_without_the_safeguards_a_failover_stops_a_job(standalone, cache, servers, tmp_path):
    """Connections to a frozen primary last until they time out; messages that it alone knew of are nowhere."""
    servers.heal()
    with contextlib.ExitStack() as stack:
        settings = cache | servers.environment() | SLOW
        controls = {}

        def start(off: str) -> None:
            installation = installation_at(standalone, servers.url, settings)
            faults = Faults(tmp_path / off, image_seconds=0.2, off=[off, "reconciler"] if off == "change" else [off])
            log = tmp_path / f"{off}.log"
            controls[off] = stack.enter_context(SharedWorkers.start(installation, faults, log))

        run_concurrently(lambda: start("watch"), lambda: start("change"))
        jobs = {off: workers.submit(IMAGES, chunk=CHUNK) for off, workers in controls.items()}
        stack.callback(servers.heal)  # before the workers stop
        with servers.deaf_replica():
            for off, job in jobs.items():
                with Ledger(controls[off].installation.settings.redis) as ledger:
                    progress(ledger, job, 2 * CHUNK)
            servers.fail_over("freeze")

        def left(off: str) -> None:
            assert stuck(controls[off].installation, jobs[off], seconds=8).done < IMAGES

        run_concurrently(lambda: left("watch"), lambda: left("change"))
