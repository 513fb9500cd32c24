"""Who is there and who leads, on a real server."""

from __future__ import annotations

import threading
import time

import pytest

from support.commands import wait_for
from worker.contract import redis_keys
from worker.contract.ledger.fleet import GONE_SECONDS, Fleet, Leadership, WorkerFacts


@pytest.fixture
def fleet(ledger) -> Fleet:
    return Fleet(ledger.link)


def facts(name: str, speed: float | None = None) -> WorkerFacts:
    return WorkerFacts(
        name=name, streams=1, threads=2, model="contrast", size=320, precision="f32", seconds_per_image=speed
    )


def age(ledger, worker: str, seconds: float) -> None:
    ledger.link.client.zincrby(redis_keys.workers(ledger.link.prefix), -seconds, worker)


def test_a_worker_is_there_until_it_leaves_or_is_silent(fleet, ledger):
    for worker in ("a", "b", "c"):
        fleet.beat(worker)
        fleet.enrol(facts(worker))
    fleet.leave("a")
    age(ledger, "b", GONE_SECONDS + 1)

    assert fleet.live() == ["c"]
    assert fleet.facts() == [facts("c")]
    fleet.beat("b")
    assert sorted(fleet.live()) == ["b", "c"]


def test_a_worker_that_is_still_loading_has_no_facts(fleet):
    assert fleet.facts() == []
    fleet.beat("a")

    assert (fleet.live(), fleet.facts()) == (["a"], [])
    fleet.enrol(facts("a"))
    fleet.enrol(facts("a", 0.5))
    assert fleet.facts() == [facts("a", 0.5)]


def test_who_is_gone_for_a_day_is_forgotten(fleet, ledger):
    for worker in ("old", "away"):
        fleet.beat(worker)
        fleet.enrol(facts(worker))
    age(ledger, "old", 86_401)
    age(ledger, "away", 86_000)

    fleet.forget_gone()

    prefix = ledger.link.prefix
    assert ledger.link.client.zrange(redis_keys.workers(prefix), 0, -1) == ["away"]
    assert ledger.link.client.hkeys(redis_keys.worker_facts(prefix)) == ["away"]
    fleet.forget_gone()


def test_one_leads_until_it_resigns(ledger):
    first, second = (Leadership(ledger.link, "feed", 60) for _ in range(2))

    assert first.hold() and first.hold() and not second.hold()
    second.resign()  # has nothing to resign
    assert first.hold() and not second.hold()
    first.resign()
    assert second.hold() and not first.hold()


def test_roles_are_apart(ledger):
    assert Leadership(ledger.link, "feed", 60).hold() and Leadership(ledger.link, "books", 60).hold()


def test_a_dead_leader_is_replaced_when_its_time_is_up(ledger):
    dead, heir = Leadership(ledger.link, "feed", 0.3), Leadership(ledger.link, "feed", 60)
    began = time.monotonic()
    assert dead.hold() and not heir.hold()

    wait_for(heir.hold, "the role to be free", 10)

    assert time.monotonic() - began > 0.25
    assert not dead.hold()


def test_never_two_at_once(ledger):
    """Six stand for a role and give it up again; a counter that only the holder moves never sees two."""
    key, trouble, terms = f"{ledger.link.prefix}holders", [], []

    def stand():
        role = Leadership(ledger.link, "feed", 30)
        for _ in range(60):
            if role.hold():
                terms.append(1)
                if ledger.link.client.incr(key) != 1:
                    trouble.append("two")
                ledger.link.client.decr(key)
                role.resign()

    threads = [threading.Thread(target=stand) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert terms and not trouble
