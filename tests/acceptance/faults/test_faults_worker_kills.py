"""Workers are killed: the model process, the whole worker, at the worst moment, repeatedly.

Beside each test runs a control run without the safeguard that the test checks.
"""

from __future__ import annotations

import logging
import os
import random
import re
import signal
import time

import pytest

from support import commands
from support.fault_run import FaultRun, run_concurrently
from support.fault_timing import IN_FLIGHT, LEASE_BACK_WITHIN, MUTEX, RECONCILED_WITHIN, SHORT_SLACK, SLACK
from support.job_account import broker_empty, longest_absences, missing, progress, stuck
from support.node_processes import Node, children_of

log = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(300)


def kill_model_process_mid_chunk(run: FaultRun, node: Node) -> str:
    """Submit a job of two chunks and kill the model process half-way through the first; return the job's id."""
    job = run.submit(24, chunk=12)
    with run.ledger() as ledger:
        progress(ledger, job, 4)
    node.model_processes()[0].kill()
    return job


def test_a_killed_model_process_repeats_only_its_images_in_flight(fault_run, control_run):
    def with_safeguard() -> None:
        with (run := fault_run.configured(image_seconds=0.2)).node() as node:
            job = kill_model_process_mid_chunk(run, node)
            account = run.settle(job)
        assert account.view.ok == 24
        assert 0 < account.repeated <= IN_FLIGHT
        assert max(account.executions.values()) == 2

    def without_requeue() -> None:
        kept = {"task_reject_on_worker_lost": False}
        with (run := control_run.configured(image_seconds=0.2, off=["reconciler"], celery=kept)).node() as node:
            job = kill_model_process_mid_chunk(run, node)
            with run.ledger() as ledger:
                commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty")
            view = stuck(run.installation, job, RECONCILED_WITHIN + 3)
        assert view.done < 24 and len(missing(run.installation, job)) == 1

    run_concurrently(with_safeguard, without_requeue)


def kill_consumer_mid_chunk(run: FaultRun, node: Node) -> str:
    """Submit a job of one chunk and kill its consumer half-way; return the job's id."""
    job = run.submit(24, chunk=24)
    with run.ledger() as ledger:
        progress(ledger, job, 4)
    node.consumers()[0].kill()
    return job


def hold_mutex(run: FaultRun, seconds: float) -> None:
    """Hold the restore mutex like a process that died while it looked for expired leases."""
    with run.ledger() as ledger:
        client = ledger.connection.client
        client.set(f"{ledger.connection.prefix}unacked_mutex", "of-a-dead-process", px=int(seconds * 1000))


def test_the_chunk_of_a_killed_worker_returns_when_the_lease_expires(fault_run, control_run):
    """The holder of the restore mutex dies at the same time."""

    def with_safeguard() -> None:
        with (run := fault_run.configured(image_seconds=0.2)).node() as node:
            job = kill_consumer_mid_chunk(run, node)
            hold_mutex(run, MUTEX)
            commands.wait_for(node.model_processes, "a new worker")
            up = time.monotonic()
            with run.ledger() as ledger:
                progress(ledger, job, ledger.view(job).done + 1, LEASE_BACK_WITHIN + SLACK)
            log.info("lease back %.1f s after its worker was up again", time.monotonic() - up)
            account = run.settle(job)
        assert account.view.ok == 24
        assert account.repeated <= IN_FLIGHT

    def with_a_lasting_mutex() -> None:
        with (run := control_run.configured(image_seconds=0.2)).node() as node:
            job = kill_consumer_mid_chunk(run, node)
            hold_mutex(run, 300)  # `unacked_mutex_expire` by default
            commands.wait_for(node.model_processes, "a new worker")
            view = stuck(run.installation, job, LEASE_BACK_WITHIN + 3)
        assert view.done < 24

    run_concurrently(with_safeguard, with_a_lasting_mutex)


def test_a_message_lost_between_reply_and_record_is_published_again(fault_run, control_run):
    """The worker dies after Redis has handed out a message and before kombu has recorded it."""

    def with_safeguard() -> None:
        run = fault_run.configured(image_seconds=0.05)
        run.faults.arm("lose", 2)
        with run.node():
            job = run.submit(24, chunk=4)
            absent = longest_absences(run.installation, job)
            account = run.settle(job)
            assert run.faults.armed("lose") == 0
        assert account.view.ok == 24
        # A lost chunk had not started, but the next message is fetched while the last images of a chunk are in flight.
        assert account.repeated <= 2 * IN_FLIGHT
        log.info("chunks that were nowhere, for seconds: %s", absent)
        published_again = re.findall(r"event=chunks_republished job=\S+ chunks=\[(.*?)\]", run.log.read_text())
        assert sum(len(chunks.split(",")) for chunks in published_again) >= 2
        assert max(absent.values()) <= RECONCILED_WITHIN + SHORT_SLACK

    def without_reconciler() -> None:
        run = control_run.configured(image_seconds=0.05, off=["reconciler"])
        run.faults.arm("lose", 2)
        with run.node():
            job = run.submit(24, chunk=4)
            with run.ledger() as ledger:
                progress(ledger, job, 16)
                commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty")
            view = stuck(run.installation, job, LEASE_BACK_WITHIN + 3)
        assert view.done == 16, "two chunks of four are gone"
        assert len(missing(run.installation, job)) == 2

    run_concurrently(with_safeguard, without_reconciler)


KILLS = 24
UNDER_KILLS = 280
"""Images of the job. Two processes finish them in 20 s if none is killed. The kills take 13 s or more."""


def kill_at_random(
    run: FaultRun, node: Node, job: str, *, dice: random.Random, weights: dict[str, int], kills: int
) -> int:
    """Send SIGKILL to random processes at random moments until the job has ended; return the number of kills."""
    victims_of = {
        "consumer": lambda: [one for one in node.consumers() if children_of(one)],  # only those that are up
        "model_process": node.model_processes,
        "steward": node.stewards,
    }
    killed = 0
    with run.ledger() as ledger:
        while killed < kills and not ledger.view(job).ended:
            time.sleep(dice.uniform(0.1, 1.0))
            (role,) = dice.choices(list(weights), list(weights.values()))
            if victims := victims_of[role]():
                dice.choice(victims).kill()
                killed += 1
    return killed


@pytest.mark.skipif(os.cpu_count() < 2, reason="two core sets need two cores")
def test_two_dozen_kills_at_random_moments_lose_nothing(fault_run, control_run):
    """The gap of the transport is stretched; otherwise its losses would be too rare to see."""
    two = {"MASKMILL_PLAN__PROCESSES": "2"}

    def with_safeguard() -> None:
        with (run := fault_run.configured(settings=two, image_seconds=0.1, gap_seconds=0.15)).node() as node:
            job = run.submit(UNDER_KILLS, chunk=4)
            kills = kill_at_random(
                run,
                node,
                job,
                dice=random.Random(1),
                weights={"consumer": 10, "model_process": 7, "steward": 3},
                kills=KILLS,
            )
            account = run.settle(job)
        assert kills >= KILLS / 2, "the job ended before enough kills"
        assert (account.view.ok, account.view.dead) == (UNDER_KILLS, 0)
        assert account.repeated <= kills * 2 * IN_FLIGHT
        looks = run.log.read_text().count("event=chunks_republished")
        log.info("%d kills, %d images repeated, %d looks found lost chunks", kills, account.repeated, looks)

    def without_reconciler() -> None:
        # A wider gap, since this run only has to lose a message.
        run = control_run.configured(image_seconds=0.1, gap_seconds=0.6, off=["reconciler"])
        with run.node() as node:
            job = run.submit(UNDER_KILLS, chunk=4)
            dice, kills, lost = random.Random(2), 0, []
            while kills < KILLS and not lost:
                with run.ledger() as ledger:  # the worker must run images again before the next kill
                    progress(ledger, job, ledger.view(job).done + 1)
                kills += kill_at_random(run, node, job, dice=dice, weights={"consumer": 1}, kills=1)
                time.sleep(1)
                lost = missing(run.installation, job)
            time.sleep(LEASE_BACK_WITHIN)
            still = missing(run.installation, job)
        log.info("control: %d kills lost %d chunks", kills, len(still))
        assert set(lost) & set(still), "nothing was lost without the reconciler: the test proves nothing"

    run_concurrently(with_safeguard, without_reconciler)


def reload_slowly(run: FaultRun, node: Node) -> str:
    """Kill a model process whose replacement loads its model for longer than Celery waits by default."""
    job = run.submit(12, chunk=12)
    with run.ledger() as ledger:
        progress(ledger, job, 1)
    run.faults.arm("slow-load", 2)
    node.model_processes()[0].kill()
    return job


def test_a_model_process_may_load_slowly(fault_run, control_run):
    slow = {"image_seconds": 0.2, "load_seconds": 6.0}

    def with_safeguard() -> None:
        with (run := fault_run.configured(**slow)).node() as node:
            job = reload_slowly(run, node)
            account = run.settle(job)
            assert run.faults.armed("slow-load") == 1, "one new process was enough"
        assert account.view.ok == 12

    def with_the_default_limit() -> None:
        with (run := control_run.configured(**slow, celery={"worker_proc_alive_timeout": 4.0})).node() as node:
            reload_slowly(run, node)
            commands.wait_for(lambda: run.faults.armed("slow-load") == 0, "a second process to be started", 40)

    run_concurrently(with_safeguard, with_the_default_limit)


def test_sigterm_returns_the_images_not_started_and_repeats_none(fault_run):
    run = fault_run.configured(image_seconds=0.3)
    with commands.workers(run.environment, run.log) as supervisor, run.ledger() as ledger:
        job = run.submit(24, chunk=24)
        progress(ledger, job, 4)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(SLACK) == 0
        done = ledger.view(job).done
        client, prefix = ledger.connection.client, ledger.connection.prefix
        assert (client.llen(f"{prefix}images"), client.hlen(f"{prefix}unacked")) == (1, 0)
    assert done < 24

    with run.node():
        account = run.settle(job)
    assert account.view.ok == 24
    assert account.repeated == 0
