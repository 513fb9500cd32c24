"""Redis is lost whole: `producer recover --all` finds every job in S3, and puts back those that had not ended."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from producer.cli import cli
from producer.client import Client
from producer.recover import recover
from producer.recover_all import Finding, recover_all
from producer.retry import retry
from support.jobs import run
from worker.contract.errors import BrokerUnavailable, ContractError, JobStateError
from worker.contract.job import JobStatus
from worker.contract.messages import OutcomeKind
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest, outcome_log
from worker.steward import bookkeeper


@pytest.fixture(autouse=True)
def _at_once(monkeypatch) -> None:
    monkeypatch.setattr(bookkeeper, "COLLECT_SECONDS", 0)


def lose_redis(world) -> None:
    client = world.ledger.connection.client
    client.delete(*client.keys(f"{world.ledger.connection.prefix}*"))


def books(world, times: int = 3) -> None:
    for _ in range(times):
        world.bookkeeper.tick()


def found(world, *places: str, dry_run: bool = False) -> dict[str, tuple[Finding, int, int]]:
    urls = [S3Url(world.bucket, place) for place in places or ("",)]
    return {
        job.job: (job.finding, job.total, job.done)
        for job in recover_all(world.store, world.ledger, urls, dry_run=dry_run)
    }


@pytest.fixture
def lost(world):
    """Four destinations at several depths: jobs that run, had ended, were being listed, and whose files are damaged."""
    run(world.ledger, world.submit(11, job="half", dest="a/deep/half"), [0, 2], bad=[1])
    world.submit(6, job="fresh", dest="a/fresh")
    run(world.ledger, world.submit(3, job="finished", dest="b"), [0])
    run(world.ledger, world.submit(6, job="cancelled", dest="b/inner"), [0])
    world.ledger.cancel("cancelled")
    world.submit(3, job="damaged", dest="c")
    world.submit(3, job="listing", dest="d")
    books(world)
    world.store.put(S3Url(world.bucket, "c/_maskmill/damaged/job.json"), b"{", content_type="x")
    world.store.delete(S3Url(world.bucket, "d/_maskmill/listing/job.json"))
    for key in ("a/fresh/x.png", "b/1.png", "b/_maskmill/no job/job.json", "b/_maskmill/uploads/p/1.jpg"):
        world.store.put(S3Url(world.bucket, key), b"x", content_type="x")
    lose_redis(world)
    return world


EXPECTED = {
    "half": (Finding.RECOVERED, 11, 6),
    "fresh": (Finding.RECOVERED, 6, 0),
    "finished": (Finding.ENDED, 0, 0),
    "cancelled": (Finding.ENDED, 0, 0),
    "damaged": (Finding.UNREADABLE, 0, 0),
    "listing": (Finding.NOT_SUBMITTED, 0, 0),
}


def test_every_job_that_had_not_ended_comes_back_and_ends(lost):
    assert found(lost, dry_run=True) == EXPECTED
    assert lost.backlog.active() == []

    assert found(lost) == EXPECTED

    assert sorted(job.view.job for job in lost.backlog.active()) == ["fresh", "half"]
    run(lost.ledger, lost.ledger.view("fresh"), [0, 1])
    run(lost.ledger, lost.ledger.view("half"), [1, 3])
    books(lost)
    ended = {job: lost.ledger.view(job) for job in ("fresh", "half")}
    assert {job: (view.status, view.ok, view.failed) for job, view in ended.items()} == {
        "fresh": (JobStatus.FINISHED, 6, 0),
        "half": (JobStatus.FINISHED, 10, 1),
    }
    again = found(lost)
    assert (again["half"][0], again["fresh"][0]) == (Finding.ENDED, Finding.ENDED)


def test_a_second_recovery_leaves_the_jobs_alone(lost):
    found(lost)
    run(lost.ledger, lost.ledger.view("fresh"), [0])

    assert {job: finding for job, (finding, *_) in found(lost, "a/", "a/fresh/").items()} == {
        "half": Finding.KNOWN,
        "fresh": Finding.KNOWN,
    }
    assert lost.ledger.view("fresh").ok == 3


def test_the_command_prints_a_line_for_each_job_and_exact_numbers(lost):
    def call(*args: str):
        return CliRunner().invoke(cli, ["recover", "--all", *args], standalone_mode=False)

    dry = call(f"s3://{lost.bucket}/a", "--dry-run")
    assert dry.return_value == 0
    assert dry.stdout.splitlines() == [
        f"fresh s3://{lost.bucket}/a/fresh/ would be recovered: 6 images, 0 done, 6 left",
        f"half s3://{lost.bucket}/a/deep/half/ would be recovered: 11 images, 6 done, 5 left",
    ]
    assert "2 recovered; 17 images, 6 done, 11 left (dry run: nothing was written)" in dry.stderr

    done = call(f"s3://{lost.bucket}/", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.return_value == 1
    assert [(line["job"], line["finding"]) for line in lines[:-1]] == sorted(
        (job, finding.value) for job, (finding, *_) in EXPECTED.items()
    )
    assert "is not JSON" in next(line["reason"] for line in lines if line.get("job") == "damaged")
    assert lines[-1]["jobs"] == {"recovered": 2, "in redis": 0, "ended": 2, "not submitted": 1, "unreadable": 1}
    assert (lines[-1]["total"], lines[-1]["done"], lines[-1]["left"]) == (17, 6, 11)


def test_a_place_without_jobs_is_no_error(world):
    done = CliRunner().invoke(cli, ["recover", "--all", f"s3://{world.bucket}/none/"], standalone_mode=False)

    assert (done.return_value, done.stderr.strip()) == (0, "no job found")


def test_programs_recover_too(lost):
    with Client(lost.settings) as client:
        jobs = list(client.recover_all(f"s3://{lost.bucket}/a", f"s3://{lost.bucket}/b"))

    assert [(job.job, job.finding) for job in jobs] == [
        ("cancelled", Finding.ENDED),
        ("finished", Finding.ENDED),
        ("fresh", Finding.RECOVERED),
        ("half", Finding.RECOVERED),
    ]


def test_a_copy_of_a_folder_does_not_run_its_job_twice(world):
    world.submit(3)
    lose_redis(world)
    for item in list(world.store.list(world.out)):
        body, _ = world.store.get(world.out / item.key, max_bytes=1 << 20)
        world.store.put(S3Url(world.bucket, f"backup/{item.key}"), body, content_type="x")

    jobs = list(recover_all(world.store, world.ledger, [S3Url(world.bucket)]))

    assert [(job.dest.key, job.finding) for job in jobs] == [
        ("backup/", Finding.UNREADABLE),
        ("out/", Finding.RECOVERED),
    ]
    assert "is a copy: its job writes to" in jobs[0].reason


def test_jobs_that_write_to_one_destination_keep_their_order(world):
    for name in ("first", "second"):
        world.submit(3, job=name, dest="same")
    lose_redis(world)

    found(world)

    assert [job.view.job for job in world.backlog.active()] == ["first", "second"]


def test_an_end_that_lacks_its_marker_is_completed(world):
    """The marker is written last: Redis may be lost before it."""
    run(world.ledger, world.submit(3), [0])
    books(world)
    folder = manifest.job_folder(world.out, "job")
    world.store.delete(folder / outcome_log.SUCCESS)
    lose_redis(world)

    assert found(world) == {"job": (Finding.RECOVERED, 3, 3)}
    assert world.ledger.view("job").status is JobStatus.CLOSING
    books(world)
    assert world.store.head(folder / outcome_log.SUCCESS)


@pytest.mark.parametrize("running", [False, True], ids=["just reopened", "half done"])
def test_a_retry_that_was_under_way_goes_on(world, running):
    run(world.ledger, world.submit(12), [0, 1, 2, 3], bad=[1, 4, 7])
    books(world)
    retry(world.store, world.ledger, "job", failed=True, cancelled=False)
    if running:
        run(world.ledger, world.ledger.view("job"), [0], bad=[1])
        world.bookkeeper.tick()
    lose_redis(world)

    assert found(world) == {"job": (Finding.RECOVERED, 12, 10 if running else 9)}

    view = world.ledger.view("job")
    assert (view.ok, view.failed, view.epoch) == (9, int(running), 2)
    run(world.ledger, view, [1, 2] if running else [0, 1, 2])
    books(world)
    assert world.ledger.view("job").ok == (11 if running else 12)


def test_a_retry_of_failed_images_does_not_run_those_that_were_cancelled(world):
    run(world.ledger, world.submit(12), [0, 1], bad=[1])
    world.ledger.cancel("job")
    books(world)
    retry(world.store, world.ledger, "job", failed=True, cancelled=False)
    lose_redis(world)

    found(world)

    view = world.ledger.view("job")
    assert (view.ok, view.failed, view.cancelled, view.status) == (5, 0, 6, JobStatus.RUNNING)
    assert world.backlog.take("job", 10, epoch=view.epoch) == [0]
    assert world.ledger.outcomes("job", 6, 6) == [OutcomeKind.CANCELLED] * 6


def test_a_recovered_job_is_joined_under_its_job_key(world):
    world.submit(3)
    name = manifest.job_folder(world.out, "job") / outcome_log.REQUEST
    facts = outcome_log.read_json(world.store, world.out, "job", outcome_log.REQUEST)
    world.store.put(name, json.dumps(facts | {"job_key": "nightly"}).encode(), content_type="x")
    lose_redis(world)

    found(world)

    assert world.ledger.holder("nightly") == "job"


def test_of_two_recoveries_at_the_same_time_one_counts(world, monkeypatch):
    """The other one has read S3 before, and must not replace what workers have recorded since."""
    world.submit(6)
    lose_redis(world)
    check = "producer.recover_all.refuse_known"

    def faster(ledger, job):
        monkeypatch.undo()
        run(ledger, recover(world.store, ledger, world.out, job), [0])

    monkeypatch.setattr(check, faster)

    assert found(world) == {"job": (Finding.KNOWN, 0, 0)}
    assert world.ledger.view("job").ok == 3


def test_a_call_repeated_after_a_lost_answer_is_no_second_recovery(world):
    world.submit(6)
    lose_redis(world)
    connection, calls = world.ledger.connection, []
    script = connection.script("restore")

    def repeated(**options):
        calls.append(script(**options))
        return script(**options)

    connection._scripts["restore"] = repeated

    assert recover(world.store, world.ledger, world.out, "job").status is JobStatus.RUNNING
    assert calls == [1]
    with pytest.raises(JobStateError):
        recover(world.store, world.ledger, world.out, "job")


def test_s3_trouble_of_one_job_is_its_own_and_that_of_redis_ends_the_call(lost, monkeypatch):
    read = outcome_log.read_json

    def failing(store, dest, job, name):
        if job == "half":
            raise ContractError("S3 is in trouble")
        return read(store, dest, job, name)

    monkeypatch.setattr(outcome_log, "read_json", failing)
    assert found(lost, "a/", dry_run=True) == {
        "half": (Finding.UNREADABLE, 0, 0),
        "fresh": (Finding.RECOVERED, 6, 0),
    }

    def gone(job):
        raise BrokerUnavailable("gone")

    monkeypatch.setattr(lost.ledger, "view", gone)
    with pytest.raises(BrokerUnavailable):
        found(lost, "a/")
