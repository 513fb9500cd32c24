"""Every job ends, whatever S3 answers; a job that waits says for what."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from producer.cli import jobs
from support.jobs import HERE, message, outcome, run
from worker.contract import redis_keys
from worker.contract.errors import AccessDenied, CredentialsRefused, ServiceError, StoreUnavailable
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import unblocked
from worker.contract.messages import OutcomeKind


def refuse_writes(world, monkeypatch, error):
    def refused(*_, **__):
        raise error

    monkeypatch.setattr(world.store, "put", refused)
    monkeypatch.setattr(world.store, "upload", refused)


def status(*options: str) -> str:
    done = CliRunner().invoke(jobs.status_command, [*options], catch_exceptions=False, standalone_mode=False)
    return " ".join(done.stdout.split())


@pytest.mark.parametrize("error", [AccessDenied("no right to write"), ServiceError("bucket 'x' does not exist")])
@pytest.mark.parametrize("cancelled", [False, True])
def test_a_job_whose_lists_cannot_be_written_ends_with_the_reason(world, monkeypatch, error, cancelled):
    view = world.submit(3)
    world.submit(3, job="next")
    if cancelled:
        world.ledger.cancel("job", "by hand")
    else:
        run(world.ledger, view, [0], bad=[0, 1, 2])
    refuse_writes(world, monkeypatch, error)

    for _ in range(3):
        world.bookkeeper.tick()

    ended = world.ledger.view("job")
    assert ended.status is (JobStatus.CANCELLED if cancelled else JobStatus.FINISHED)
    assert ended.reason == ("by hand; " if cancelled else "") + f"its lists are incomplete: {error}"
    assert [job.view.job for job in unblocked(world.backlog.active())] == ["next"]


def test_a_running_job_whose_outcomes_cannot_be_written_is_cancelled(world, monkeypatch):
    run(world.ledger, world.submit(9), [0])
    refuse_writes(world, monkeypatch, AccessDenied("no right to write"))
    monkeypatch.setattr("worker.steward.bookkeeper.COLLECT_SECONDS", 0.0)

    for _ in range(4):
        world.bookkeeper.tick()

    ended = world.ledger.view("job")
    assert (ended.status, ended.ok, ended.cancelled) == (JobStatus.CANCELLED, 3, 6)
    assert ended.reason.startswith("its outcomes cannot be written: no right to write")


def test_a_job_whose_manifest_cannot_be_read_is_cancelled(world, monkeypatch):
    world.submit(9)

    def refused(*_, **__):
        raise AccessDenied("no right to read")

    monkeypatch.setattr(world.store, "get", refused)
    world.feeder.tick()

    assert world.ledger.view("job").reason == "its manifest cannot be read: no right to read"


@pytest.mark.parametrize("error", [CredentialsRefused("wrong key"), StoreUnavailable("503")])
def test_an_error_that_passes_or_concerns_this_node_ends_no_job(world, monkeypatch, error):
    run(world.ledger, world.submit(3), [0])
    with monkeypatch.context() as broken:
        refuse_writes(world, broken, error)
        for _ in range(3):
            with pytest.raises(type(error)):
                world.bookkeeper.tick()
    assert world.ledger.view("job").status is JobStatus.CLOSING

    world.bookkeeper.tick()

    assert (world.ledger.view("job").status, world.ledger.view("job").reason) == (JobStatus.FINISHED, "")


@pytest.mark.parametrize("action", ["run", "pause", "close"])
def test_status_names_the_job_that_a_job_waits_for(world, action):
    first = world.submit(3)
    world.submit(3, job="second")
    if action == "pause":
        world.ledger.pause("job")
    if action == "close":
        run(world.ledger, first, [0])
    now = {"run": "running", "pause": "paused", "close": "closing"}[action]

    expected = f"job job ({now}), which writes to {first.options.dest}"
    assert f"waits for {expected}" in status("second")
    assert json.loads(status("second", "--json"))["waiting"] == f"waits for {expected}"
    assert "waits for" not in status("job")


def test_an_image_that_s3_fails_for_is_counted_and_shown(world):
    view = world.submit(3)
    run(world.ledger, view, [])
    held = world.chunks.start(message(view, 0), HERE)

    assert [held.store_failure(f"answer {n}", index=1, tries=3) for n in (1, 2)] == [1, 2]
    assert held.store_failure("another image", index=2, tries=3) == 1
    shown = world.ledger.view("job")
    assert shown.waits_for_store(time.time()) and shown.wait_for == "another image"
    assert shown.wait_since is not None and shown.wait_since < shown.wait_at
    assert "waits for S3 since" in status("job") and "another image" in status("job")

    assert held.store_failure("the last", index=1, tries=3) == 3  # given up: nothing is waited for
    assert not world.ledger.view("job").waits_for_store(time.time())
    held.record([outcome(0), outcome(1, OutcomeKind.FAILED), outcome(2)])
    suspects = redis_keys.job_keys(world.ledger.connection.prefix, "job").suspects
    assert not world.ledger.connection.client.exists(suspects)


def test_a_worker_that_lost_its_chunk_counts_nothing(world):
    view = world.submit(3)
    run(world.ledger, view, [])
    held = world.chunks.start(message(view, 0), HERE)
    world.chunks.record_death(message(view, 0), HERE, "killed")

    assert held.store_failure("answer", index=1, tries=3) == 0
    assert world.ledger.view("job").wait_for == ""


def test_the_rest_of_a_chunk_is_published_after_a_pause_and_no_sooner(world):
    view = world.submit(3)
    run(world.ledger, view, [])
    silence = world.chunks.start(message(view, 0), HERE).silence

    for seconds, due in ((30.0, []), (0.001, [0])):
        held = world.chunks.start(message(view, 0), HERE)
        assert not held.release(model="m", core_seconds=1.0, blameless=True, retry_after=seconds)
        time.sleep(0.01)
        assert world.backlog.silent("job", silence) == due

    assert world.reconciler(silence).scan() == 1
    assert world.queued() == [redis_keys.task_id("job", 0, 0)]
