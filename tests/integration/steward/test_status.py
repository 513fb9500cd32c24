"""`producer status` of a running job: its workers and the share of each stage."""

from __future__ import annotations

import json

from click.testing import CliRunner

from producer.cli import jobs
from support.jobs import HERE, lease, message, outcome, run
from worker.contract.ledger.fleet import Fleet, WorkerFacts

WORKER = WorkerFacts(
    name="worker-0@node", cpus=(0, 1), streams=2, threads=2, model="contrast", size=320, precision="fp32"
)


def status(*options: str) -> str:
    done = CliRunner().invoke(jobs.status_command, ["job", *options], catch_exceptions=False, standalone_mode=False)
    return done.stdout


def test_status_of_a_running_job_shows_workers_and_shares_of_stages(world):
    view = world.submit(6)
    run(world.ledger, view, [])
    Fleet(world.ledger.connection).register(WORKER)
    Fleet(world.ledger.connection).heartbeat(WORKER.name)
    first = message(view, 0)
    world.chunks.start(first, HERE)
    lease(world.ledger, first).record([outcome(0).model_copy(update={"stages": {"infer": 3.0, "fetch": 1.0}})])

    shown = json.loads(status("--json"))
    assert [worker["name"] for worker in shown["workers"]] == [WORKER.name]
    assert shown["stage_shares"] == {"infer": 0.75, "fetch": 0.25}
    text = " ".join(status().split())
    assert "1 live worker: 1 on 2 cores with contrast 320 fp32 (2 x 1)" in text
    assert "time of the last images: infer 75%, fetch 25%" in text


def test_status_of_an_ended_job_shows_neither(world):
    run(world.ledger, world.submit(3), [0])
    for _ in range(2):
        world.bookkeeper.tick()

    assert "workers" not in json.loads(status("--json"))
    assert "live worker" not in status()
