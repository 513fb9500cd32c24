"""The heartbeat bootstep on a real server: a worker is live until its consumer shuts down."""

from __future__ import annotations

from types import SimpleNamespace

from celery.worker.consumer import Consumer

from worker.consumer.heartbeat import Heartbeat
from worker.contract.ledger.fleet import Fleet, WorkerFacts
from worker.runner.parent_channel import ParentChannel

NAME = "worker-0@here"


def test_a_worker_that_shuts_down_is_no_longer_live(installation, ledger):
    timer = SimpleNamespace(call_repeatedly=lambda *_: SimpleNamespace(cancel=lambda: None))
    parent = SimpleNamespace(
        app=SimpleNamespace(
            maskmill=installation.settings, maskmill_name=NAME, maskmill_parent_channel=ParentChannel()
        ),
        timer=timer,
        steps=[],
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


def test_a_worker_that_s3_refuses_is_not_live_until_it_is_accepted(installation, ledger):
    beats, channel = [], ParentChannel()
    app = SimpleNamespace(maskmill=installation.settings, maskmill_name=NAME, maskmill_parent_channel=channel)
    timer = SimpleNamespace(
        call_repeatedly=lambda _, call, args: beats.append(lambda: call(*args)) or SimpleNamespace(cancel=lambda: None)
    )
    parent, fleet, seen = SimpleNamespace(app=app, timer=timer), Fleet(ledger.connection), []
    step = Heartbeat(parent)
    step.start(parent)
    fleet.register(WorkerFacts(name=NAME, streams=1, threads=1, model="contrast", size=320, precision="f32"))

    for refused in (True, False):
        channel.set_refused(refused)
        beats[0]()
        seen.append((fleet.live(), len(fleet.facts())))
    step.stop(parent)

    assert seen == [([], 0), ([NAME], 1)]
