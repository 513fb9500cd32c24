"""Records, indexes and objects that maskmill never writes: the trouble is their job's alone."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from producer.cli import control, jobs
from support.crooked import GARBAGE, PARTS, TOLERATED, UNREADABLE, WRONG_TYPES, Change, set_field
from support.jobs import HERE, message, run
from support.log_lines import log_text
from support.scheduler_harness import SchedulerHarness
from worker.contract import redis_keys
from worker.contract.errors import BadMessage, JobStateError, JobUnreadable
from worker.contract.job import JobStatus, JobView, is_job_id
from worker.contract.ledger import backlog as backlog_module
from worker.contract.ledger import records
from worker.contract.ledger.chunks import Verdict
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.records import Records
from worker.contract.ledger.replication import replicas
from worker.contract.storage import outcome_log
from worker.steward import bookkeeper
from worker.steward.fleet_metrics import FleetCollector

HARMLESS = ("manifest", "an outcome of no image")
"""Its other fields are those of a newer version."""

KINDS = dict(enumerate(UNREADABLE))


def call(command, *args: str) -> Result:
    return CliRunner().invoke(command, [*args], catch_exceptions=False, standalone_mode=False)


def crook(world: SchedulerHarness, change: Change, job: str = "crooked") -> JobView:
    """Submit a job and change its keys."""
    view = world.submit(6, job=job, dest=job)
    change(world.ledger.connection.client, redis_keys.job_keys(world.ledger.connection.prefix, job))
    return view


def rounds(world: SchedulerHarness, count: int = 2) -> None:
    """Do what the steward of a fleet does, and a scrape of its metrics."""
    collector = FleetCollector(
        world.backlog, Fleet(world.ledger.connection), lambda: True, lambda: replicas(world.ledger.connection), 0
    )
    for _ in range(count):
        world.feeder.tick()
        world.bookkeeper.tick()
        world.reconciler(0).scan()
        found = {metric.name: metric.samples for metric in collector.collect()}
        assert found["maskmill_redis_up"][0].value == 1 and "maskmill_backlog_images" in found


def check_the_others(world: SchedulerHarness) -> None:
    """A job submitted now runs to its end, and can be listed and shown."""
    world.drain()
    view = world.submit(6, job="good", dest="good")
    rounds(world, 1)
    assert "good.0.0" in world.queued()
    run(world.ledger, view, range(view.chunks))
    rounds(world)
    assert world.ledger.view("good").status is JobStatus.FINISHED
    assert "good" in {line.get("job") for line in listed()}
    assert json.loads(call(jobs.status_command, "good", "--json").stdout)["ok"] == 6


def listed() -> list[dict]:
    return [json.loads(line) for line in call(jobs.list_command, "--limit", "1000", "--json").stdout.splitlines()]


def test_records_that_cannot_be_read_are_put_aside_shown_and_forgotten(world, caplog):
    """All kinds at once, a job of each."""
    views = {f"crooked-{number}": crook(world, UNREADABLE[kind], f"crooked-{number}") for number, kind in KINDS.items()}

    rounds(world)

    said = log_text(caplog)
    assert {
        kind for number, kind in KINDS.items() if f"event=job_record_invalid job=crooked-{number} " not in said
    } == set()
    assert said.count("event=job_record_invalid") == len(KINDS) == world.backlog.unreadable()
    assert world.backlog.active() == []
    check_the_others(world)
    shown = {line["job"]: line for line in listed() if line["job"] in views}
    assert {kind for number, kind in KINDS.items() if not is_shown(shown.get(f"crooked-{number}"))} == set()
    for job, view in views.items():
        assert refuses(world, view)
        with pytest.raises(JobUnreadable):
            world.ledger.view(job)

    done = call(control.forget_command, "--unreadable")

    assert done.stdout.count(" is forgotten") == len(KINDS)
    world.bookkeeper._readmitted = float("-inf")
    rounds(world, 1)
    assert [line["job"] for line in listed()] == ["good"]
    assert world.backlog.unreadable() == 0
    prefix = world.ledger.connection.prefix
    keys = [key for job in views for key in redis_keys.job_keys(prefix, job)]
    assert not world.ledger.connection.client.exists(*keys)


def is_shown(line: dict | None) -> bool:
    return line is not None and line["status"] == "unreadable" and 0 < len(line["reason"]) < 400


def test_a_job_that_cannot_be_read_is_shown_with_its_reason_and_remedy(world):
    crook(world, UNREADABLE["an unknown status"])

    assert " unreadable " in call(jobs.list_command).stdout
    done = call(jobs.status_command, "crooked", "--json")
    assert done.return_value == 1
    assert json.loads(done.stdout) == {"job": "crooked", "status": "unreadable", "reason": listed()[0]["reason"]}
    assert "`producer forget crooked`" in call(jobs.status_command, "crooked").stdout
    for command in (control.cancel_command, control.pause_command, control.retry_command):
        with pytest.raises(JobUnreadable, match="`producer recover crooked DEST`"):
            call(command, "crooked")
    with pytest.raises(JobUnreadable):
        call(jobs.watch_command, "crooked", "--timeout", "1")


def test_a_bucket_that_is_said_to_be_away_for_ever_holds_up_no_job(world):
    """One record would stop all jobs of its bucket: they wait until one chunk of it has found the bucket to be back."""
    view = crook(world, set_field("store_retry_at", 4e9))
    keys = redis_keys.job_keys(world.ledger.connection.prefix, view.job)
    world.ledger.connection.client.hset(keys.record, mapping={"store_bucket": world.bucket, "wait_at": 4e9})

    check_the_others(world)
    assert world.chunks.start(message(view, 0), HERE).verdict is Verdict.RUN


def test_names_of_no_job_do_not_hide_the_others(world):
    """`producer list` shows the newest names of the index."""
    connection = world.ledger.connection
    names = [f"name-{number}" for number in range(3 * backlog_module._NAMES)]
    view = crook(world, set_field("status", "dreaming"))
    connection.client.zadd(redis_keys.jobs(connection.prefix), dict.fromkeys(names, 4e9))

    rounds(world, 1)

    check_the_others(world)
    assert [line["job"] for line in listed()] == ["good", view.job]
    assert connection.client.zcard(redis_keys.jobs(connection.prefix)) == 2


def refuses(world: SchedulerHarness, view: JobView) -> bool:
    """Return whether a message of the job, from before the change, starts nothing that Redis or a worker could mind."""
    try:
        lease = world.chunks.start(message(view, 0), HERE)
    except (JobUnreadable, BadMessage):
        return True
    if lease.verdict is Verdict.RUN:  # what is wrong concerns the steward alone
        assert lease.options is not None and len(lease.outcomes) == 3
    return True


@pytest.mark.parametrize("kind", TOLERATED)
def test_keys_with_odd_content_disturb_no_other_job_and_theirs_ends(world, monkeypatch, kind):
    monkeypatch.setattr(bookkeeper, "COLLECT_SECONDS", 0)
    monkeypatch.setattr(bookkeeper, "STUCK_SECONDS", 0)
    view = crook(world, TOLERATED[kind])

    rounds(world)
    check_the_others(world)
    assert refuses(world, view)
    call(jobs.status_command, "crooked", "--json")
    call(jobs.status_command, "crooked")
    rounds(world)

    if not world.ledger.view("crooked").ended:
        call(control.cancel_command, "crooked")
        world.bookkeeper._isolation._failing.clear()
        rounds(world, 3)
    assert world.ledger.view("crooked").ended
    call(control.forget_command, "crooked")


def test_outcomes_of_the_log_that_are_none_are_dropped_and_the_others_kept(world, monkeypatch, caplog):
    monkeypatch.setattr(bookkeeper, "COLLECT_SECONDS", 0)
    view = crook(world, TOLERATED["log entries that are no outcomes"])
    run(world.ledger, view, [0])

    rounds(world)

    found = [outcome.index for outcome in outcome_log.newest_first(world.store, view.options.dest, "crooked")]
    assert found == [2, 1, 0]
    assert "event=outcomes_invalid job=crooked entries=14" in log_text(caplog)


def test_outcomes_are_collected_in_parts_of_a_limited_size(world, monkeypatch):
    monkeypatch.setattr(bookkeeper, "COLLECT_SECONDS", 0)
    monkeypatch.setattr(backlog_module, "PENDING_BYTES", 200)
    view = world.submit(6)
    run(world.ledger, view, [0, 1])

    world.bookkeeper.tick()

    assert len(outcome_log.part_names(world.store, world.out, "job")) > 1
    assert [o.index for o in outcome_log.newest_first(world.store, world.out, "job")] == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("place", "kind"),
    [(place, kind) for place in ("manifest", "results") for kind in PARTS if (place, kind) != HARMLESS],
)
def test_objects_that_were_changed_end_their_job_alone(world, caplog, place, kind):
    view = world.submit(6, job="crooked", dest="crooked")
    if place == "manifest":
        world.store.put(world.first_part("crooked", "crooked"), PARTS[kind], content_type="x")
        rounds(world)
    else:
        part = f"0000-{1:015d}-{0:06d}-{1:06d}.jsonl.gz"
        url = outcome_log.results_folder(view.options.dest, "crooked") / part
        world.store.put(url, PARTS[kind], content_type="x")
        run(world.ledger, view, range(view.chunks))
    rounds(world)

    check_the_others(world)
    ended = world.ledger.view("crooked")
    assert ended.status is (JobStatus.CANCELLED if place == "manifest" else JobStatus.FINISHED)
    # Lines of the outcome log that are in order, but of no image of the job, take no part.
    harmless = place == "results" and kind in ("an empty list", "an outcome of no image")
    assert bool(ended.reason) is not harmless, ended.reason


@pytest.mark.parametrize("kind", WRONG_TYPES)
def test_a_shared_key_of_another_type_is_repaired(world, kind):
    connection = world.ledger.connection
    for key, own in redis_keys.shared(connection.prefix).items():
        if kind == own:
            continue
        connection.client.delete(key)
        WRONG_TYPES[kind](connection.client, key)
        assert isinstance(world.ledger.newest(5), list) and world.backlog.active() == []
        world.bookkeeper.tick()
        rounds(world, 1)
    check_the_others(world)


def test_an_index_with_names_that_are_none_is_tidied(world):
    connection = world.ledger.connection
    names = [*GARBAGE[1:], "n" * 2**20, "a b", "../x", "{job}", "unknown-job"]
    connection.client.sadd(redis_keys.active(connection.prefix), *names)
    connection.client.zadd(redis_keys.jobs(connection.prefix), dict.fromkeys(names, 9e9))

    assert world.backlog.active() == [] and listed() == []
    _, unreadable, unknown = Records(connection).active()
    assert (unreadable, sorted(unknown)) == ([], sorted(filter(is_job_id, [str(name) for name in names])))
    rounds(world)

    assert connection.client.scard(redis_keys.active(connection.prefix)) == 0
    check_the_others(world)


def test_an_index_larger_than_allowed_is_read_in_part_and_drains(world, monkeypatch):
    for module in (records, backlog_module):
        monkeypatch.setattr(module, "MAX_ACTIVE", 10)
    connection = world.ledger.connection
    connection.client.sadd(redis_keys.active(connection.prefix), *(f"name of no job {n}" for n in range(95)))
    world.submit(6)

    for _ in range(12):
        world.bookkeeper.tick()

    assert [job.view.job for job in world.backlog.active()] == ["job"]


@pytest.mark.parametrize("value", GARBAGE[1:])
def test_a_job_key_that_names_no_job_is_free(world, value):
    connection = world.ledger.connection
    connection.client.set(redis_keys.job_key(connection.prefix, "mine"), value)
    is_name = value in ("x", "-1", "nan", "inf", "1e400", str(2**63), "0" * 40)

    assert world.ledger.holder("mine") == (value if is_name else None)
    assert world.ledger.claim("mine", "job") == (value if is_name else "job")


def test_a_job_key_of_another_type_is_free(world):
    connection = world.ledger.connection
    connection.client.rpush(redis_keys.job_key(connection.prefix, "mine"), "x")

    assert world.ledger.holder("mine") is None
    assert world.ledger.claim("mine", "job") == "job" == world.ledger.holder("mine")


def test_facts_of_workers_that_cannot_be_read_are_left_out(world):
    connection = world.ledger.connection
    fleet = Fleet(connection)
    for number, value in enumerate((*GARBAGE, "[]", "{}", "[" * 100_000)):
        fleet.heartbeat(f"worker-{number}@node")
        connection.client.hset(redis_keys.worker_facts(connection.prefix), f"worker-{number}@node", value)
        connection.client.hset(redis_keys.worker_facts(connection.prefix), f"start-failure:node{number}", value)

    assert fleet.facts() == [] and fleet.last_failure() is None
    fleet.forget_gone()
    check_the_others(world)


def test_a_chunk_with_garbage_for_its_attempts_and_suspects_runs(world):
    view = world.submit(6)
    client, keys = world.ledger.connection.client, redis_keys.job_keys(world.ledger.connection.prefix, "job")
    for value in GARBAGE:
        client.hset(keys.attempts, "0", value)
        for name in ("chunk:0", "deaths:0", "deaths:1", "store:0"):
            client.hset(keys.suspects, name, value)

        found = world.chunks.start(message(view, 0), HERE)

        assert found.verdict is Verdict.RUN and found.one_by_one
        assert found.store_failure("503", index=0, tries=3) <= 1  # what is no number counts as 0
        client.hdel(keys.suspects, "store:0")
        found.release(model="m", core_seconds=1.0, blameless=True)


def test_a_job_that_can_be_read_again_runs_on(world):
    """A newer steward reads what an older one could not; so does this one once the record is mended."""
    view = crook(world, UNREADABLE["an unknown status"])
    rounds(world)
    assert world.backlog.active() == [] and world.queued() == []

    world.ledger.connection.client.hset(redis_keys.job(world.ledger.connection.prefix, view.job), "status", "running")
    world.bookkeeper._readmitted = float("-inf")
    rounds(world)

    assert [job.view.job for job in world.backlog.active()] == ["crooked"]
    assert world.backlog.unreadable() == 0 and world.queued()


def test_a_job_whose_chunks_are_in_no_place_is_cancelled_after_a_while(world, monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(bookkeeper.time, "monotonic", lambda: now[0])
    crook(world, TOLERATED["chunks that are in no place"])
    world.bookkeeper.tick()
    now[0] = bookkeeper.STUCK_SECONDS - 1
    world.bookkeeper.tick()
    assert world.ledger.view("crooked").status is JobStatus.RUNNING

    now[0] += 1
    world.bookkeeper.tick()

    assert world.ledger.view("crooked").reason.startswith("its keys in Redis were changed: 6 images are left")
    assert "event=job_stuck job=crooked" in log_text(caplog)


def test_forget_takes_ended_and_unreadable_jobs_only(world):
    view = world.submit(6)
    with pytest.raises(JobStateError, match="cancel it first"):
        call(control.forget_command, "job")
    run(world.ledger, view, range(view.chunks))
    rounds(world)
    for number in range(3):
        crook(world, UNREADABLE["no status"], f"crooked-{number}")

    assert call(control.forget_command, "--unreadable").stdout.count(" is forgotten") == 3
    assert [line["job"] for line in listed()] == ["job"]
    call(control.forget_command, "job")

    assert listed() == []
    assert world.store.head(world.first_part())
