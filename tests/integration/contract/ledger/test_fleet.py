"""Live workers and leadership, on a real server."""

from __future__ import annotations

import threading
import time

import pytest

from support.commands import wait_for
from worker.contract import redis_keys
from worker.contract.ledger.fleet import GONE_SECONDS, Fleet, WorkerFacts
from worker.contract.ledger.leadership import Leadership


@pytest.fixture
def fleet(ledger) -> Fleet:
    return Fleet(ledger.connection)


def facts(name: str, speed: float | None = None) -> WorkerFacts:
    return WorkerFacts(
        name=name, streams=1, threads=2, model="contrast", size=320, precision="f32", seconds_per_image=speed
    )


def age(ledger, worker: str, seconds: float) -> None:
    ledger.connection.client.zincrby(redis_keys.workers(ledger.connection.prefix), -seconds, worker)


def test_a_worker_is_live_until_it_deregisters_or_is_silent(fleet, ledger):
    for worker in ("a", "b", "c"):
        fleet.heartbeat(worker)
        fleet.register(facts(worker))
    fleet.deregister("a")
    age(ledger, "b", GONE_SECONDS + 1)

    assert fleet.live() == ["c"]
    assert fleet.facts() == [facts("c")]
    fleet.heartbeat("b")
    assert sorted(fleet.live()) == ["b", "c"]


def test_a_worker_that_is_still_loading_has_no_facts(fleet):
    assert fleet.facts() == []
    fleet.heartbeat("a")

    assert (fleet.live(), fleet.facts()) == (["a"], [])
    fleet.register(facts("a"))
    fleet.register(facts("a", 0.5))
    assert fleet.facts() == [facts("a", 0.5)]


def test_a_worker_that_is_gone_for_a_day_is_forgotten(fleet, ledger):
    for worker in ("old", "away"):
        fleet.heartbeat(worker)
        fleet.register(facts(worker))
    age(ledger, "old", 86_401)
    age(ledger, "away", 86_000)

    fleet.forget_gone()

    prefix = ledger.connection.prefix
    assert ledger.connection.client.zrange(redis_keys.workers(prefix), 0, -1) == ["away"]
    assert ledger.connection.client.hkeys(redis_keys.worker_facts(prefix)) == ["away"]
    fleet.forget_gone()


def test_one_leads_until_it_resigns(ledger):
    first, second = (Leadership(ledger.connection, "feed", 60) for _ in range(2))

    assert first.hold() and first.hold() and not second.hold()
    second.resign()  # holds nothing
    assert first.hold() and not second.hold()
    first.resign()
    assert second.hold() and not first.hold()


def test_roles_are_apart(ledger):
    assert Leadership(ledger.connection, "feed", 60).hold() and Leadership(ledger.connection, "books", 60).hold()


def test_a_dead_leader_is_replaced_when_its_time_is_up(ledger):
    dead, heir = Leadership(ledger.connection, "feed", 0.3), Leadership(ledger.connection, "feed", 60)
    began = time.monotonic()
    assert dead.hold() and not heir.hold()

    wait_for(heir.hold, "the role to be free", 10)

    assert time.monotonic() - began > 0.25
    assert not dead.hold()


def test_two_candidates_never_lead_at_once(ledger):
    """Six candidates take and release a role; a counter that only the holder changes never exceeds one."""
    key, trouble, terms = f"{ledger.connection.prefix}holders", [], []

    def compete():
        role = Leadership(ledger.connection, "feed", 30)
        for _ in range(60):
            if role.hold():
                terms.append(1)
                if ledger.connection.client.incr(key) != 1:
                    trouble.append("two")
                ledger.connection.client.decr(key)
                role.resign()

    threads = [threading.Thread(target=compete) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert terms and not trouble


def test_the_last_failure_to_start_is_kept_until_the_node_starts(ledger, monkeypatch):
    fleet = Fleet(ledger.connection)
    assert fleet.last_failure() is None
    fleet.report_failure("worker-0@one", "no bundle")
    fleet.report_failure("two", "too little memory")

    assert fleet.facts() == [] and fleet.live() == []
    assert (fleet.last_failure().node, fleet.last_failure().reason) == ("two", "too little memory")
    fleet.register(WorkerFacts(name="worker-1@two", streams=1, threads=1, model="m", size=320, precision="f32"))
    assert (fleet.last_failure().node, fleet.last_failure().reason) == ("one", "no bundle")

    fleet.forget_gone()
    assert fleet.last_failure() is not None
    monkeypatch.setattr("worker.contract.ledger.fleet._FORGET_SECONDS", -10)
    assert fleet.last_failure() is None
    fleet.forget_gone()
    names = ledger.connection.client.hkeys(redis_keys.worker_facts(ledger.connection.prefix))
    assert not any(name.startswith("start-failure:") for name in names)
