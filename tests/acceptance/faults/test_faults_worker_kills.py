"""Workers that are killed: their child, the whole worker, at the worst moment, again and again.

F1 to F4, F8, F9 and F24. A control run, without the safeguard that the test is about, is played beside the test.
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
from support import faults as f

log = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(300)


def kill_child_mid_chunk(scene: f.Scene, node: f.Node) -> str:
    """A job of two chunks whose first loses its child half-way; its id."""
    job = f.submit(scene.installation, 24, chunk=12)
    with scene.ledger() as ledger:
        f.progress(ledger, job, 4)
    node.children()[0].kill()
    return job


def test_a_killed_child_costs_no_more_than_what_it_had_in_work(scene, control):
    def play() -> None:
        with (here := scene.but(image_seconds=0.2)).node() as node:
            job = kill_child_mid_chunk(here, node)
            account = here.settle(job)
        assert account.view.ok == 24
        assert 0 < account.repeated <= f.IN_FLIGHT
        assert max(account.executions.values()) == 2

    def without_requeue() -> None:
        kept = {"task_reject_on_worker_lost": False}
        with (here := control.but(image_seconds=0.2, off=["reconciler"], celery=kept)).node() as node:
            job = kill_child_mid_chunk(here, node)
            with here.ledger() as ledger:
                commands.wait_for(lambda: f.broker_empty(ledger), "the broker to be empty")
            view = f.stuck(here.installation, job, f.RECONCILED_WITHIN + 3)
        assert view.done < 24 and len(f.missing(here.installation, job)) == 1

    f.side_by_side(play, without_requeue)


def kill_worker_mid_chunk(scene: f.Scene, node: f.Node) -> str:
    job = f.submit(scene.installation, 24, chunk=24)
    with scene.ledger() as ledger:
        f.progress(ledger, job, 4)
    node.parents()[0].kill()
    return job


def hold_mutex(scene: f.Scene, seconds: float) -> None:
    """As a process does that dies while it looks for expired leases."""
    with scene.ledger() as ledger:
        client = ledger.link.client
        client.set(f"{ledger.link.prefix}unacked_mutex", "of-a-dead-process", px=int(seconds * 1000))


def test_a_killed_worker_gives_its_chunk_back_when_the_lease_ends(scene, control):
    """The holder of the restore mutex dies at the same time (F2 with F24)."""

    def play() -> None:
        with (here := scene.but(image_seconds=0.2)).node() as node:
            job = kill_worker_mid_chunk(here, node)
            hold_mutex(here, f.MUTEX)
            commands.wait_for(node.children, "a new worker")
            up = time.monotonic()
            with here.ledger() as ledger:
                f.progress(ledger, job, ledger.view(job).done + 1, f.LEASE_BACK_WITHIN + f.SLACK)
            log.info("lease back %.1f s after its worker was up again", time.monotonic() - up)
            account = here.settle(job)
        assert account.view.ok == 24
        assert account.repeated <= f.IN_FLIGHT

    def with_a_mutex_that_stays() -> None:
        with (here := control.but(image_seconds=0.2)).node() as node:
            job = kill_worker_mid_chunk(here, node)
            hold_mutex(here, 300)  # `unacked_mutex_expire` by default
            commands.wait_for(node.children, "a new worker")
            view = f.stuck(here.installation, job, f.LEASE_BACK_WITHIN + 3)
        assert view.done < 24

    f.side_by_side(play, with_a_mutex_that_stays)


def test_a_message_lost_between_the_reply_and_the_record_is_published_again(scene, control):
    """The worker dies after Redis has handed a message out and before kombu has written down that it did."""

    def play() -> None:
        here = scene.but(image_seconds=0.05)
        here.faults.arm("lose", 2)
        with here.node():
            job = f.submit(here.installation, 24, chunk=4)
            absent = f.absences(here.installation, job)
            account = here.settle(job)
            assert here.faults.armed("lose") == 0
        assert account.view.ok == 24
        # What was lost had not begun; the next message is fetched while the last images of a chunk are in work.
        assert account.repeated <= 2 * f.IN_FLIGHT
        log.info("chunks that were nowhere, for seconds: %s", absent)
        published_again = re.findall(r"event=chunks_republished job=\S+ chunks=\[(.*?)\]", here.log.read_text())
        assert sum(len(chunks.split(",")) for chunks in published_again) >= 2
        assert max(absent.values()) <= f.RECONCILED_WITHIN + f.LATE

    def without_reconciler() -> None:
        here = control.but(image_seconds=0.05, off=["reconciler"])
        here.faults.arm("lose", 2)
        with here.node():
            job = f.submit(here.installation, 24, chunk=4)
            with here.ledger() as ledger:
                f.progress(ledger, job, 16)
                commands.wait_for(lambda: f.broker_empty(ledger), "the broker to be empty")
            view = f.stuck(here.installation, job, f.LEASE_BACK_WITHIN + 3)
        assert view.done == 16, "two chunks of four are gone"
        assert len(f.missing(here.installation, job)) == 2

    f.side_by_side(play, without_reconciler)


KILLS = 24


def kill_at_random(
    scene: f.Scene, node: f.Node, job: str, *, dice: random.Random, weights: dict[str, int], kills: int
) -> int:
    """SIGKILL whom the dice say when they say it, until the job has ended; how many."""
    who = {
        "parent": lambda: [parent for parent in node.parents() if f.below(parent)],  # one that is up
        "child": node.children,
        "steward": node.stewards,
    }
    killed = 0
    with scene.ledger() as ledger:
        while killed < kills and not ledger.view(job).ended:
            time.sleep(dice.uniform(0.1, 1.0))
            (role,) = dice.choices(list(weights), list(weights.values()))
            if victims := who[role]():
                dice.choice(victims).kill()
                killed += 1
    return killed


@pytest.mark.skipif(os.cpu_count() < 2, reason="two core sets need two cores")
def test_two_dozen_kills_at_random_moments_lose_nothing(scene, control):
    """The gap of the transport is held open longer than it is, or its losses would be too rare to see."""
    two = {"MASKMILL_PLAN__PROCESSES": "2"}

    def play() -> None:
        with (here := scene.but(settings=two, image_seconds=0.1, gap_seconds=0.15)).node() as node:
            job = f.submit(here.installation, 360, chunk=4)
            kills = kill_at_random(
                here, node, job, dice=random.Random(1), weights={"parent": 10, "child": 7, "steward": 3}, kills=KILLS
            )
            account = here.settle(job)
        assert kills >= KILLS / 2, "the job ended before enough was killed"
        assert (account.view.ok, account.view.dead) == (360, 0)
        assert account.repeated <= kills * 2 * f.IN_FLIGHT
        looks = here.log.read_text().count("event=chunks_republished")
        log.info("%d kills, %d images repeated, %d looks found lost chunks", kills, account.repeated, looks)

    def without_reconciler() -> None:
        here = control.but(image_seconds=0.1, gap_seconds=0.15, off=["reconciler"])
        with here.node() as node:
            job = f.submit(here.installation, 360, chunk=4)
            dice, kills, lost = random.Random(2), 0, []
            while kills < KILLS and not lost:
                with here.ledger() as ledger:  # one that has begun to work again
                    f.progress(ledger, job, ledger.view(job).done + 1)
                kills += kill_at_random(here, node, job, dice=dice, weights={"parent": 1}, kills=1)
                time.sleep(1)
                lost = f.missing(here.installation, job)
            time.sleep(f.LEASE_BACK_WITHIN)
            still = f.missing(here.installation, job)
        log.info("control: %d kills lost %d chunks", kills, len(still))
        assert set(lost) & set(still), "nothing was lost without the reconciler: the test proves nothing"

    f.side_by_side(play, without_reconciler)


def reload_slowly(scene: f.Scene, node: f.Node) -> str:
    """Kill a child whose replacement needs longer to load its model than Celery waits by default."""
    job = f.submit(scene.installation, 12, chunk=12)
    with scene.ledger() as ledger:
        f.progress(ledger, job, 1)
    scene.faults.arm("slow-load", 2)
    node.children()[0].kill()
    return job


def test_a_child_that_loads_slowly_is_waited_for(scene, control):
    slow = {"image_seconds": 0.2, "load_seconds": 6.0}

    def play() -> None:
        with (here := scene.but(**slow)).node() as node:
            job = reload_slowly(here, node)
            account = here.settle(job)
            assert here.faults.armed("slow-load") == 1, "one child was enough"
        assert account.view.ok == 12

    def with_the_default_limit() -> None:
        with (here := control.but(**slow, celery={"worker_proc_alive_timeout": 4.0})).node() as node:
            reload_slowly(here, node)
            commands.wait_for(lambda: here.faults.armed("slow-load") == 0, "a second child to be started", 40)

    f.side_by_side(play, with_the_default_limit)


def test_sigterm_hands_back_what_has_not_begun_and_repeats_nothing(scene):
    here = scene.but(image_seconds=0.3)
    with commands.workers(here.environment, here.log) as supervisor, here.ledger() as ledger:
        job = f.submit(here.installation, 24, chunk=24)
        f.progress(ledger, job, 4)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(f.SLACK) == 0
        done = ledger.view(job).done
        client, prefix = ledger.link.client, ledger.link.prefix
        assert (client.llen(f"{prefix}images"), client.hlen(f"{prefix}unacked")) == (1, 0)
    assert done < 24

    with here.node():
        account = here.settle(job)
    assert account.view.ok == 24
    assert account.repeated == 0
