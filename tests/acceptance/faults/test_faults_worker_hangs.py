"""Workers that stand still, messages that come twice, a leader that dies over its work: F7, F21, F22, F25."""

from __future__ import annotations

import logging
import os
import signal
import time

import pytest

from support import commands
from support import faults as f
from worker.contract import redis_keys
from worker.contract.ledger.backlog import Backlog

log = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(300)

LIMIT = {"MASKMILL_WORKER__IMAGE_TIME_LIMIT_SECONDS": "3"}
HELD = 48
"""Images of a job that is to be frozen half-way: a machine busy with something else may be slow to freeze it."""


def freeze_child(scene: f.Scene, node: f.Node) -> str:
    """A job whose child stands still half-way."""
    job = f.submit(scene.installation, HELD, chunk=HELD)
    with scene.ledger() as ledger:
        f.progress(ledger, job, 4)
    node.children()[0].suspend()
    return job


def test_a_child_that_hangs_is_killed_and_its_chunk_runs_again(scene, control):
    def play() -> None:
        with (here := scene.but(settings=LIMIT, image_seconds=0.2)).node() as node:
            job = freeze_child(here, node)
            account = here.settle(job)
        assert account.view.ok == HELD
        assert account.repeated <= f.IN_FLIGHT
        assert here.log.read_text().count("event=model_process_killed") == 1

    def without_watchdog() -> None:
        with (here := control.but(settings=LIMIT, image_seconds=0.2, off=["watchdog"])).node() as node:
            job = freeze_child(here, node)
            view = f.stuck(here.installation, job, 9)
            for child in node.children():
                child.resume()
        assert view.done < HELD

    f.side_by_side(play, without_watchdog)


@pytest.mark.skipif(os.cpu_count() < 2, reason="two core sets need two cores")
def test_a_worker_frozen_longer_than_its_lease_changes_nothing_when_it_comes_back(scene):
    here = scene.but(settings={"MASKMILL_PLAN__PROCESSES": "2"}, image_seconds=0.3)
    with here.node() as node, here.ledger() as ledger:
        job = f.submit(here.installation, 24, chunk=24)
        f.progress(ledger, job, 4)
        (holder,) = ledger.link.client.hvals(redis_keys.job_keys(ledger.link.prefix, job).running)
        (frozen,) = [p for p in node.parents() if holder in p.cmdline()]

        f.stop_family(frozen, signal.SIGSTOP)
        try:
            before = ledger.view(job).done
            f.progress(ledger, job, before + 1, f.LEASE_BACK_WITHIN + f.RECONCILED_WITHIN + f.SLACK)
            assert holder not in ledger.link.client.hvals(redis_keys.job_keys(ledger.link.prefix, job).running)
        finally:
            f.stop_family(frozen, signal.SIGCONT)
        account = here.settle(job)
        time.sleep(f.LEASE + f.SWEEP)  # its late acknowledgement leaves no copy behind that would come back
        assert f.broker_empty(ledger)
    assert account.view.ok == 24
    assert max(account.executions.values()) <= 2
    assert account.repeated <= 2 * f.IN_FLIGHT


@pytest.mark.skipif(os.cpu_count() < 2, reason="two core sets need two cores")
def test_a_message_pushed_five_times_is_run_once(scene, control):
    def pushed(here: f.Scene) -> f.Account:
        job = f.submit(here.installation, 12, chunk=12)
        with here.ledger() as ledger:
            queue = f"{ledger.link.prefix}{redis_keys.QUEUE}"
            (message,) = ledger.link.client.lrange(queue, 0, -1)
            ledger.link.client.lpush(queue, *[message] * 4)
        with here.node():
            account = here.settle(job)
        assert account.view.ok == 12, "the counts are exact, however often it runs"
        return account

    def play() -> None:
        two = {"MASKMILL_PLAN__PROCESSES": "2"}
        assert pushed(scene.but(settings=two, image_seconds=0.2)).repeated == 0

    def without_verdict() -> None:
        again = pushed(control.but(image_seconds=0.2, off=["verdict"])).repeated
        assert again > 0, "nothing was repeated without the ledger's verdict: the test proves nothing"

    f.side_by_side(play, without_verdict)


def test_a_chunk_longer_than_its_lease_is_delivered_once(scene, control):
    def copies(here: f.Scene) -> int:
        """How many messages wait at most while the only one that was sent is in work."""
        with here.node(), here.ledger() as ledger:
            job = f.submit(here.installation, 16, chunk=16)  # four at a time: 6.4 s
            f.progress(ledger, job, 1)
            waiting, backlog = 0, Backlog(ledger.link)
            while not ledger.view(job).ended:
                waiting = max(waiting, backlog.queued())
                time.sleep(0.05)
            account = here.settle(job)
        assert account.view.ok == 16
        return waiting

    def play() -> None:
        assert copies(scene.but(image_seconds=1.6)) == 0

    def without_renewal() -> None:
        again = copies(control.but(image_seconds=1.6, off=["renewal"]))
        assert again > 0, "nothing was delivered twice without renewal: the test proves nothing"

    f.side_by_side(play, without_renewal)


def test_a_leader_killed_while_it_publishes_leaves_no_gap(scene, control):
    def leader(scene: f.Scene) -> str | None:
        with scene.ledger() as ledger:
            return ledger.link.client.get(redis_keys.leader(ledger.link.prefix, "feed"))

    def play() -> None:
        with (here := scene.but(image_seconds=0.05)).node():
            first = commands.wait_for(lambda: leader(here), "a leader")
            here.faults.arm("half-batch", 2)
            job = f.submit(here.installation, 40, chunk=4)
            commands.wait_for(lambda: here.faults.armed("half-batch") == 1, "the leader to die")
            died = time.monotonic()
            commands.wait_for(lambda: leader(here) not in (None, first), "another leader", f.LEADER + f.SLACK)
            log.info("another leader after %.1f s", time.monotonic() - died)
            account = here.settle(job)
            assert here.faults.armed("half-batch") == 0
        assert (account.view.ok, account.repeated) == (40, 0)

    def without_reconciler() -> None:
        with (here := control.but(image_seconds=0.05, off=["reconciler"])).node():
            commands.wait_for(lambda: leader(here), "a leader")
            here.faults.arm("half-batch", 2)
            job = f.submit(here.installation, 40, chunk=4)
            commands.wait_for(lambda: here.faults.armed("half-batch") == 0, "the leader to die twice")
            with here.ledger() as ledger:
                f.progress(ledger, job, 32)
                commands.wait_for(lambda: f.broker_empty(ledger), "the broker to be empty")
            view = f.stuck(here.installation, job, f.RECONCILED_WITHIN + 3)
        assert view.done == 32 and len(f.missing(here.installation, job)) == 2

    f.side_by_side(play, without_reconciler)
