"""`producer status` of a running job: its workers and the share of each stage."""

from __future__ import annotations

import json
from unittest.mock import Mock

from click.testing import CliRunner
from rich.console import Console

from producer.cli import control, jobs
from support.jobs import HERE, lease, message, outcome, run
from worker.contract import console
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


def test_a_job_without_worker_says_why_the_last_one_did_not_start(world):
    world.submit(6)
    Fleet(world.ledger.connection).report_failure(WORKER.name, "no bundle at /models (bundle_not_found)")

    assert "no live worker; last reason: no bundle at /models (bundle_not_found) (node node, " in status()
    assert "no bundle at /models" in json.loads(status("--json"))["waiting"]
    world.ledger.pause("job")
    assert "paused: `producer resume job` continues it" in status()


def invoke(command, *args: str):
    return CliRunner().invoke(command, [*args], catch_exceptions=False, standalone_mode=False)


def test_lists_and_states_keep_ids_whole_in_a_pipe_and_at_80_columns(world, monkeypatch):
    long = world.submit(3, job="20260131-120000-a1b2c3", dest="a-long-destination/" * 5)
    world.ledger.cancel(long.job, "a reason of many words " * 10)

    lines = invoke(jobs.list_command).stdout.splitlines()
    assert len(lines) == 2 and long.job in lines[1] and str(long.options.dest) in lines[1]
    assert any(
        line.startswith(f"job {long.job} ") and line.rstrip().endswith("words")
        for line in invoke(jobs.status_command, long.job).stdout.splitlines()
    )

    monkeypatch.setattr(console, "out", Console(highlight=False, force_terminal=True, color_system=None, width=80))
    shown = invoke(jobs.list_command).stdout
    assert any(long.job in line for line in shown.splitlines())
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_waiting_without_a_terminal_prints_json_lines_only_and_why_images_failed(world):
    run(world.ledger, world.submit(3), [0], bad=[1])
    world.ledger.cancel("job", "x")  # nothing is left to do: it ends with the next ticks
    for _ in range(2):
        world.bookkeeper.tick()

    done = invoke(jobs.watch_command, "job")
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert lines[-1]["failures_by_code"] == {"undecodable": 1}
    assert [(one["key"], one["message"]) for one in lines[-1]["failures"]] == [("1.jpg", "why")]
    [first, *_] = invoke(control.retry_command, "job", "--failed", "--wait", "--timeout", "0").stdout.splitlines()
    assert json.loads(first)["left"] == 1


def test_ctrl_c_names_how_to_follow_and_how_to_stop(world, monkeypatch):
    world.submit(3)
    monkeypatch.setattr(jobs.progress, "show", Mock(side_effect=KeyboardInterrupt))

    done = invoke(jobs.watch_command, "job")

    assert "`producer watch job` follows it again, `producer cancel job` stops it" in done.stderr


def test_status_shows_core_hours_and_costs_when_a_price_is_set(world, monkeypatch):
    run(world.ledger, world.submit(3), [0])
    assert "core-hours" in status() and "EUR" not in status() and "cost" not in json.loads(status("--json"))
    monkeypatch.setenv("MASKMILL_JOBS__PRICE_PER_CORE_HOUR", "3600")
    monkeypatch.setenv("MASKMILL_JOBS__CURRENCY", "EUR")

    spent = world.ledger.view("job").core_seconds
    assert f"core-hours, {spent:.3g} EUR" in status()
    assert (json.loads(status("--json"))["cost"], json.loads(status("--json"))["currency"]) == (spent, "EUR")


def test_status_of_an_ended_job_shows_neither(world):
    run(world.ledger, world.submit(3), [0])
    for _ in range(2):
        world.bookkeeper.tick()

    assert "workers" not in json.loads(status("--json"))
    assert "live worker" not in status()
