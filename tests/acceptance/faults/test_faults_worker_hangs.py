"""Processes that hang, messages that arrive twice, a leader that dies while it publishes."""

from __future__ import annotations

import logging
import os
import signal
import time

import pytest

from support import commands
from support.fault_run import FaultRun, run_concurrently
from support.fault_timing import (
    IN_FLIGHT,
    LEADER,
    LEASE,
    LEASE_BACK_WITHIN,
    RECONCILED_WITHIN,
    SLACK,
    SWEEP,
)
from support.job_account import Account, broker_empty, missing, progress, stuck
from support.node_processes import Node, signal_tree
from worker.contract import redis_keys
from worker.contract.ledger.backlog import Backlog

log = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(300)

LIMIT = {"MASKMILL_WORKER__IMAGE_TIME_LIMIT_SECONDS": "3"}
HELD = 48
"""Images of a job whose model process is suspended half-way: enough for a machine that suspends it late."""


def suspend_model_process(run: FaultRun, node: Node) -> str:
    """Submit a job and suspend its model process half-way; return the job's id."""
    job = run.submit(HELD, chunk=HELD)
    with run.ledger() as ledger:
        progress(ledger, job, 4)
    node.model_processes()[0].suspend()
    return job


def test_a_hung_model_process_is_killed_and_its_chunk_runs_again(fault_run, control_run):
    def with_safeguard() -> None:
        with (run := fault_run.configured(settings=LIMIT, image_seconds=0.2)).node() as node:
            job = suspend_model_process(run, node)
            account = run.settle(job)
        assert account.view.ok == HELD
        assert account.repeated <= IN_FLIGHT
        assert run.log.read_text().count("event=model_process_killed") == 1

    def without_watchdog() -> None:
        with (run := control_run.configured(settings=LIMIT, image_seconds=0.2, off=["watchdog"])).node() as node:
            job = suspend_model_process(run, node)
            view = stuck(run.installation, job, 9)
            for process in node.model_processes():
                process.resume()
        assert view.done < HELD

    run_concurrently(with_safeguard, without_watchdog)


def test_a_model_process_that_hangs_while_it_is_idle_is_killed_and_its_chunk_runs(fault_run, control_run):
    """It never starts the chunk that it gets, whose lease its parent renews."""

    def hang(run: FaultRun, node: Node) -> str:
        run.settle(run.submit(2, chunk=2))
        run.faults.clear_executions()
        node.model_processes()[0].suspend()
        return run.submit(8, chunk=4)

    def with_safeguard() -> None:
        with (run := fault_run.configured(settings=LIMIT, image_seconds=0.2)).node() as node:
            account = run.settle(hang(run, node))
        assert (account.view.ok, account.repeated) == (8, 0)
        assert run.log.read_text().count("event=model_process_killed") == 1

    def without_watchdog() -> None:
        with (run := control_run.configured(settings=LIMIT, image_seconds=0.2, off=["watchdog"])).node() as node:
            view = stuck(run.installation, hang(run, node), 9)
            for process in node.model_processes():
                process.resume()
        assert view.done == 0

    run_concurrently(with_safeguard, without_watchdog)


@pytest.mark.skipif(os.cpu_count() < 2, reason="two core sets need two cores")
def test_a_worker_frozen_longer_than_its_lease_changes_nothing_when_it_comes_back(fault_run):
    run = fault_run.configured(settings={"MASKMILL_PLAN__PROCESSES": "2"}, image_seconds=0.3)
    with run.node() as node, run.ledger() as ledger:
        job = run.submit(24, chunk=24)
        progress(ledger, job, 4)
        (holder,) = ledger.connection.client.hvals(redis_keys.job_keys(ledger.connection.prefix, job).running)
        (frozen,) = [p for p in node.consumers() if holder in p.cmdline()]

        signal_tree(frozen, signal.SIGSTOP)
        try:
            before = ledger.view(job).done
            progress(ledger, job, before + 1, LEASE_BACK_WITHIN + RECONCILED_WITHIN + SLACK)
            assert holder not in ledger.connection.client.hvals(
                redis_keys.job_keys(ledger.connection.prefix, job).running
            )
        finally:
            signal_tree(frozen, signal.SIGCONT)
        account = run.settle(job)
        time.sleep(LEASE + SWEEP)  # its late acknowledgement must not leave a copy that returns
        assert broker_empty(ledger)
    assert account.view.ok == 24
    assert max(account.executions.values()) <= 2
    assert account.repeated <= 2 * IN_FLIGHT


@pytest.mark.skipif(os.cpu_count() < 2, reason="two core sets need two cores")
def test_a_message_pushed_five_times_is_run_once(fault_run, control_run):
    def push_five(run: FaultRun) -> Account:
        job = run.submit(12, chunk=12)
        with run.ledger() as ledger:
            queue = f"{ledger.connection.prefix}{redis_keys.QUEUE}"
            (message,) = ledger.connection.client.lrange(queue, 0, -1)
            ledger.connection.client.lpush(queue, *[message] * 4)
        with run.node():
            account = run.settle(job)
        assert account.view.ok == 12, "the counts are exact even if the chunk runs twice"
        return account

    def with_safeguard() -> None:
        two = {"MASKMILL_PLAN__PROCESSES": "2"}
        assert push_five(fault_run.configured(settings=two, image_seconds=0.2)).repeated == 0

    def without_verdict() -> None:
        repeated = push_five(control_run.configured(image_seconds=0.2, off=["verdict"])).repeated
        assert repeated > 0, "no image ran twice without the ledger's verdict: the test proves nothing"

    run_concurrently(with_safeguard, without_verdict)


def test_a_chunk_longer_than_its_lease_is_delivered_once(fault_run, control_run):
    def most_queued(run: FaultRun) -> int:
        """Return the most messages in the queues while the only message is being processed."""
        with run.node(), run.ledger() as ledger:
            job = run.submit(16, chunk=16)  # four at a time: 6.4 s
            progress(ledger, job, 1)
            queued, backlog = 0, Backlog(ledger.connection)
            while not ledger.view(job).ended:
                queued = max(queued, backlog.queued())
                time.sleep(0.05)
            account = run.settle(job)
        assert account.view.ok == 16
        return queued

    def with_safeguard() -> None:
        assert most_queued(fault_run.configured(image_seconds=1.6)) == 0

    def without_renewal() -> None:
        copies = most_queued(control_run.configured(image_seconds=1.6, off=["renewal"]))
        assert copies > 0, "nothing was delivered twice without renewal: the test proves nothing"

    run_concurrently(with_safeguard, without_renewal)


def test_a_leader_killed_while_it_publishes_leaves_no_gap(fault_run, control_run):
    def leader(run: FaultRun) -> str | None:
        with run.ledger() as ledger:
            return ledger.connection.client.get(redis_keys.leader(ledger.connection.prefix, "feed"))

    def with_safeguard() -> None:
        with (run := fault_run.configured(image_seconds=0.05)).node():
            first = commands.wait_for(lambda: leader(run), "a leader")
            run.faults.arm("half-batch", 2)
            job = run.submit(40, chunk=4)
            commands.wait_for(lambda: run.faults.armed("half-batch") == 1, "the leader to die")
            died = time.monotonic()
            commands.wait_for(lambda: leader(run) not in (None, first), "another leader", LEADER + SLACK)
            log.info("another leader after %.1f s", time.monotonic() - died)
            account = run.settle(job)
            assert run.faults.armed("half-batch") == 0
        assert (account.view.ok, account.repeated) == (40, 0)

    def without_reconciler() -> None:
        with (run := control_run.configured(image_seconds=0.05, off=["reconciler"])).node():
            commands.wait_for(lambda: leader(run), "a leader")
            run.faults.arm("half-batch", 2)
            job = run.submit(40, chunk=4)
            commands.wait_for(lambda: run.faults.armed("half-batch") == 0, "the leader to die twice")
            with run.ledger() as ledger:
                progress(ledger, job, 32)
                commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty")
            view = stuck(run.installation, job, RECONCILED_WITHIN + 3)
        assert view.done == 32 and len(missing(run.installation, job)) == 2

    run_concurrently(with_safeguard, without_reconciler)
