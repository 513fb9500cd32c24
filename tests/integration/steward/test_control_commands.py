"""`producer cancel`, `pause`, `resume`, `retry`, `recover`: their messages when they cannot do it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from producer.cli import control
from support.jobs import run
from worker.contract import redis_keys
from worker.contract.errors import JobNotFound, JobStateError
from worker.contract.job import JobStatus
from worker.contract.storage import manifest
from worker.contract.storage.outcome_log import DONE, SUCCESS


def call(name: str, *args: str):
    """Run a command and return its result; its exceptions are raised."""
    command = getattr(control, f"{name}_command")
    return CliRunner().invoke(command, args, catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize("name", ["cancel", "pause", "resume", "retry"])
def test_an_unknown_job_is_named_with_the_way_to_find_those_there_are(world, name):
    with pytest.raises(JobNotFound, match=r"no job 'nope' at redis://.*; `producer list` shows"):
        call(name, "nope")


def test_an_unknown_job_cannot_be_recovered_either(world):
    with pytest.raises(JobNotFound, match=r"no job 'nope' under s3://"):
        call("recover", "nope", str(world.out))


def finish(world) -> None:
    run(world.ledger, world.submit(3), [0], bad=[1])
    for _ in range(2):
        world.bookkeeper.tick()


@pytest.mark.parametrize(("name", "what"), [("cancel", "cancelled"), ("pause", "paused"), ("resume", "resumed")])
def test_a_job_that_has_ended_stays_so_and_the_message_names_the_remedy(world, name, what):
    finish(world)

    with pytest.raises(JobStateError, match=rf"job job is finished and can't be {what}: .*`producer retry job`"):
        call(name, "job")
    assert world.ledger.view("job").status is JobStatus.FINISHED


@pytest.mark.parametrize("status", [s for s in JobStatus if s not in (JobStatus.RUNNING, JobStatus.PAUSED)])
def test_every_other_state_has_its_own_remedy(world, status):
    world.submit(3)
    record = redis_keys.job(world.ledger.connection.prefix, "job")
    world.ledger.connection.client.hset(record, mapping={"status": status.value, "ending": "cancelled"})

    with pytest.raises(JobStateError, match=rf"job job is {status.value} and can't be paused: \w+") as raised:
        call("pause", "job")
    assert "see `producer status" not in str(raised.value)


def test_a_running_job_is_not_run_again(world):
    world.submit(3)

    world.ledger.connection.client.hincrby(redis_keys.job(world.ledger.connection.prefix, "job"), "failed", 1)
    with pytest.raises(JobStateError, match="job job is running: only a job that was completely submitted"):
        call("retry", "job")


def test_retry_deletes_the_marker_before_anything_runs(world, monkeypatch):
    finish(world)
    assert world.store.head(manifest.job_folder(world.out, "job") / DONE)
    order = []
    delete, reopen = type(world.store).delete, type(world.ledger).reopen
    monkeypatch.setattr(type(world.store), "delete", lambda *a: order.append(a[1].key.rpartition("/")[2]) or delete(*a))
    monkeypatch.setattr(type(world.ledger), "reopen", lambda *a, **k: order.append("run") or reopen(*a, **k))

    done = call("retry", "job", "--json")

    assert order == [SUCCESS, DONE, "run"]
    assert json.loads(done.stdout) == {"job": "job", "status": "running", "done": 2, "cancelled": 0, "left": 1}


def test_a_retry_without_images_to_run_leaves_the_job_alone(world):
    run(world.ledger, world.submit(3), [0])
    for _ in range(2):
        world.bookkeeper.tick()

    done = call("retry", "job")

    assert (done.return_value, world.ledger.view("job").status) == (0, JobStatus.FINISHED)
    assert world.store.head(manifest.job_folder(world.out, "job") / SUCCESS)


def test_cancel_pause_and_resume_say_what_is_left(world):
    world.submit(3)

    said = [json.loads(call(name, "job", "--json").stdout) for name in ("pause", "pause", "resume", "cancel", "cancel")]

    assert [line["status"] for line in said] == ["paused", "paused", "running", "stopping", "stopping"]
    assert {line["left"] for line in said} == {3}
