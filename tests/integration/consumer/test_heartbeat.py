"""The heartbeat bootstep on a real server: a worker is live until its consumer shuts down."""

from __future__ import annotations

from types import SimpleNamespace

from celery.worker.consumer import Consumer

from worker.consumer.heartbeat import Heartbeat
from worker.contract.ledger.fleet import Fleet, WorkerFacts

NAME = "worker-0@here"


def test_a_worker_that_shuts_down_is_no_longer_live(installation, ledger):
    timer = SimpleNamespace(call_repeatedly=lambda *_: SimpleNamespace(cancel=lambda: None))
    parent = SimpleNamespace(
        app=SimpleNamespace(maskmill=installation.settings, maskmill_name=NAME), timer=timer, steps=[]
    )
    step, blueprint, fleet = Heartbeat(parent), Consumer.Blueprint(), Fleet(ledger.connection)
    parent.steps.append(step)
    step.start(parent)
    fleet.register(WorkerFacts(name=NAME, streams=1, threads=1, model="contrast", size=320, precision="f32"))

    blueprint.restart(parent)  # the connection is lost
    assert fleet.live() == [NAME] and [facts.name for facts in fleet.facts()] == [NAME]
    step.start(parent)
    blueprint.restart(parent)
    blueprint.shutdown(parent)

    assert fleet.live() == []
    fleet.heartbeat(NAME)
    assert fleet.facts() == []
