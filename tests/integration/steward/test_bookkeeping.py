"""Outcomes in S3 and the lists of a job that ended: complete, exact, and the same after every interruption."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from dataclasses import replace

import pytest

from support.jobs import HERE, lease, message, outcome, run
from support.log_lines import log_text
from support.scheduler_harness import SchedulerHarness
from worker.contract import outcome_codec, redis_keys
from worker.contract.errors import StoreUnavailable
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import MaskQuality, Outcome, OutcomeKind
from worker.contract.settings import JobSettings
from worker.contract.storage import manifest, outcome_log
from worker.steward import bookkeeper, job_lists
from worker.steward.bookkeeper import Bookkeeper
from worker.telemetry import metrics

OK, FAILED, CANCELLED = OutcomeKind.OK, OutcomeKind.FAILED, OutcomeKind.CANCELLED


def folder(world: SchedulerHarness, job: str = "job", dest: str = "out") -> dict[str, bytes]:
    """Return the objects in the job's folder, except the manifest, the collected outcomes and `job.json`."""
    place = manifest.job_folder(world.out if dest == "out" else type(world.out)(world.bucket, f"{dest}/"), job)
    found = {item.key: world.store.get(place / item.key, max_bytes=10**9)[0] for item in world.store.list(place)}
    return {name: body for name, body in found.items() if not name.startswith(("manifest/", "results/", "job.json"))}


def listed(world: SchedulerHarness) -> dict[str, list[Outcome]]:
    """Return the outcomes of all lists by the first word of their names."""
    found: dict[str, list[Outcome]] = {"succeeded": [], "failed": [], "cancelled": []}
    for name, body in sorted(folder(world).items()):
        if "jsonl" in name and name != outcome_log.REVIEW:
            text = gzip.decompress(body) if name.endswith(".gz") else body
            found[name.split("-")[0].split(".")[0]] += map(Outcome.model_validate_json, text.splitlines())
    return found


def check_lists(world: SchedulerHarness, view: JobView) -> dict:
    """Check that every image is in exactly one list, as its counter says; return the job summary."""
    found = listed(world)
    assert sorted(o.index for group in found.values() for o in group) == list(range(view.total))
    assert all(o.key == f"{o.index}.jpg" for group in found.values() for o in group)
    assert len(found["succeeded"]) == view.ok + view.skipped
    assert len(found["failed"]) == view.failed + view.dead
    assert len(found["cancelled"]) == view.cancelled
    assert {o.kind for o in found["cancelled"]} <= {CANCELLED}
    facts = json.loads(folder(world)["manifest.json"])
    assert facts["counts"] == {kind.value: getattr(view, kind.value) for kind in OutcomeKind}
    assert (facts["total"], facts["status"], facts["epoch"]) == (view.total, view.status.value, view.epoch)
    present = {name for name in folder(world) if "jsonl" in name}
    assert {*facts["lists"], facts["review_list"]} == present
    good, finished = not (view.failed or view.dead), view.status is JobStatus.FINISHED
    assert (outcome_log.SUCCESS in folder(world)) == (finished and good)
    assert (outcome_log.DONE in folder(world)) == (finished and not good)
    return facts


def ended(world: SchedulerHarness, job: str = "job") -> JobView:
    for _ in range(3):
        world.bookkeeper.tick()
    return world.ledger.view(job)


def test_only_jobs_that_do_not_end_soon_can_wait(world, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(bookkeeper.time, "monotonic", lambda: now[0])

    def quiet_after(seconds: float) -> bool:
        now[0] += seconds
        return world.bookkeeper.tick()

    assert not world.bookkeeper.tick()  # no job: a short one may come at any moment
    view = world.submit(210)
    assert not quiet_after(1)  # its rate is not known yet
    assert quiet_after(1)
    run(world.ledger, view, range(7))  # 2 images/s: 189 left are 90 s
    assert quiet_after(10)
    run(world.ledger, view, range(7, 20))  # 39 images/s: 150 left are 4 s
    assert not quiet_after(1)
    assert quiet_after(1)  # the fleet makes no progress, and more than a few are left
    run(world.ledger, view, range(20, 68))
    assert not quiet_after(1)
    assert not quiet_after(1)  # these few may be done at any moment


def test_a_job_whose_outcomes_fill_a_part_soon_cannot_wait(world, monkeypatch):
    monkeypatch.setattr(bookkeeper.outcome_log, "PART_OUTCOMES", 25)
    now = [0.0]
    monkeypatch.setattr(bookkeeper.time, "monotonic", lambda: now[0])
    view = world.submit(210)
    world.bookkeeper.tick()
    run(world.ledger, view, range(5))
    now[0] += 1
    assert not world.bookkeeper.tick()  # 15 in a second: the next part is full before the next call
    monkeypatch.setattr(bookkeeper.outcome_log, "PART_OUTCOMES", 5_000)
    now[0] += 1
    assert world.bookkeeper.tick()


def test_a_finished_job(world):
    view = world.submit(8)
    run(world.ledger, view, range(3), bad=[1, 7])

    view = ended(world)

    assert view.status is JobStatus.FINISHED and view.finished_at
    facts = check_lists(world, view)
    assert facts["failures_by_code"] == {"undecodable": 2}
    assert facts["core_seconds"] == 3.0 and facts["models"] == {"m": 3}
    bad = listed(world)["failed"]
    assert {(o.index, o.code, o.message) for o in bad} == {(1, "undecodable", "why"), (7, "undecodable", "why")}
    assert {o.outputs for o in listed(world)["succeeded"]} == {(f"{i}.png",) for i in (0, 2, 3, 4, 5, 6)}
    assert world.backlog.active() == []
    assert world.ledger.connection.client.ttl(redis_keys.job(world.ledger.connection.prefix, "job")) > 0


def test_masks_that_need_review_are_listed_again_and_counted(world):
    view = world.submit(4)
    world.backlog.take("job", view.chunks, epoch=0)
    plain = {"coverage": 0.4, "soft": 0.1, "empty": False, "full": False, "touches_border": False}
    qualities = [plain, plain | {"touches_border": True}, plain | {"empty": True}, plain | {"soft": 0.7, "full": True}]
    for chunk in range(view.chunks):
        work = message(view, chunk)
        world.chunks.start(work, HERE)
        for index in range(work.start, work.start + len(work.keys)):
            found = outcome(index).model_copy(update={"quality": MaskQuality(**qualities[index])})
            lease(world.ledger, work).record([found])
        lease(world.ledger, work).release(model="m", core_seconds=1.0, blameless=True)

    facts = check_lists(world, ended(world))

    review = [Outcome.model_validate_json(line) for line in folder(world)[outcome_log.REVIEW].splitlines()]
    assert sorted(o.index for o in review) == [2, 3]
    assert facts["needs_review"] == 2
    assert facts["flags"] == {"border": 1, "empty": 1, "soft": 1, "full": 1}
    times = [o.at for o in listed(world)["succeeded"]]
    assert all(view.created_at <= at <= view.created_at + 60 for at in times)


def test_a_cancelled_job_with_a_chunk_half_done(world):
    view = world.submit(8)
    run(world.ledger, view, [0], bad=[2])
    half = message(view, 1)
    world.chunks.start(half, HERE)
    lease(world.ledger, half).record([outcome(4)])
    world.ledger.cancel("job", "enough")

    view = ended(world)

    assert (view.status, view.ok, view.failed, view.cancelled) == (JobStatus.CANCELLED, 3, 1, 4)
    assert check_lists(world, view)["reason"] == "enough"


def test_a_stopped_job(world):
    view = world.submit(8, max_failed=1)
    run(world.ledger, view, [0, 1], bad=[0, 1, 3])

    view = ended(world)

    assert view.status is JobStatus.STOPPED
    check_lists(world, view)


def test_a_retried_job_replaces_all_lists_and_drops_what_is_left_over(world, monkeypatch):
    monkeypatch.setattr(job_lists, "LIST_IMAGES", 2)
    view = world.submit(9)
    run(world.ledger, view, [0], bad=[1])
    world.ledger.cancel("job")
    first = ended(world)
    check_lists(world, first)
    assert {n for n in folder(world) if n.startswith("cancelled-")} == {f"cancelled-0000{n}.jsonl.gz" for n in range(3)}

    view = world.ledger.reopen("job", failed=True, cancelled=True)
    run(world.ledger, view, [0, 1, 2], bad=[8])
    second = ended(world)

    assert (second.status, second.ok, second.failed, second.cancelled) == (JobStatus.FINISHED, 8, 1, 0)
    check_lists(world, second)
    assert [o.index for o in listed(world)["failed"]] == [8]
    view = world.ledger.reopen("job", failed=True, cancelled=True)
    world.ledger.cancel("job")
    third = ended(world)
    assert (third.status, third.cancelled) == (JobStatus.CANCELLED, 1)
    check_lists(world, third)  # without _DONE again


@pytest.mark.parametrize("verb", ["put", "open_writer", "delete"])
def test_lists_are_the_same_when_writing_them_is_interrupted_anywhere(world, monkeypatch, verb):
    monkeypatch.setattr(job_lists, "LIST_IMAGES", 2)
    view = world.submit(9)
    run(world.ledger, view, [0, 1], bad=[1])
    place = manifest.job_folder(world.out, "job")
    world.store.put(place / "succeeded-00099.jsonl.gz", b"of an earlier epoch", content_type="x")
    world.ledger.cancel("job")
    whole, calls, broken = getattr(world.store, verb), [0], [0]

    def sometimes(*args, **how):
        calls[0] += 1
        if calls[0] == broken[0]:
            raise StoreUnavailable("503")
        return whole(*args, **how)

    monkeypatch.setattr(world.store, verb, sometimes)
    for broken[0] in range(1, 20):
        calls[0] = 0
        try:
            world.bookkeeper.tick()
            world.bookkeeper.tick()
        except StoreUnavailable:
            assert world.ledger.view("job").status in (JobStatus.STOPPING, JobStatus.CLOSING)
            assert outcome_log.SUCCESS not in folder(world)
            continue
        break
    assert broken[0] > 1
    view = ended(world)
    assert view.status is JobStatus.CANCELLED
    check_lists(world, view)


def test_success_is_written_last(world, monkeypatch):
    view = world.submit(4)
    run(world.ledger, view, range(2), bad=[3])
    written = []
    put = world.store.put
    monkeypatch.setattr(world.store, "put", lambda at, *args, **how: written.append(at.key) or put(at, *args, **how))

    ended(world)

    short = [key.rpartition("/")[2] for key in written if "/results/" not in key]
    assert short == ["failed.jsonl", "needs-review.jsonl", "succeeded-00000.jsonl.gz", "manifest.json", "_DONE"]


def test_outcomes_are_collected_once_and_taken_out_of_redis(world, monkeypatch):
    monkeypatch.setattr(bookkeeper, "COLLECT_SECONDS", 0)
    monkeypatch.setattr(outcome_log, "PART_OUTCOMES", 2)
    view = world.submit(8)
    run(world.ledger, view, [0, 1])
    put, lost = world.store.put, [StoreUnavailable("503")]

    def once(place, body, **how):
        put(place, body, **how)
        if lost:
            raise lost.pop()

    monkeypatch.setattr(world.store, "put", once)
    with pytest.raises(StoreUnavailable):
        world.bookkeeper.tick()
    world.bookkeeper.tick()

    assert [job.pending_outcomes for job in world.backlog.active()] == [0]
    found = [o.index for o in outcome_log.newest_first(world.store, world.out, "job")]
    assert found == [5, 4, 3, 2, 1, 0]


def test_lists_are_written_though_details_were_lost_with_redis(world):
    view = world.submit(4)
    run(world.ledger, view, range(2), bad=[1])
    world.ledger.connection.client.delete(redis_keys.job_keys(world.ledger.connection.prefix, "job").log)

    view = ended(world)

    assert check_lists(world, view)["failures_by_code"] == {job_lists.UNKNOWN: 1}
    assert [o.index for o in listed(world)["failed"]] == [1]


def test_a_job_with_damaged_objects_ends_and_blocks_no_other_job(world, caplog):
    for job in ("bad", "good"):
        view = world.submit(6, job=job, dest=job)
        run(world.ledger, view, range(2))
    part = f"0000-{1:015d}-{0:06d}-{1:06d}.jsonl.gz"
    world.damage(outcome_log.results_folder(type(world.out)(world.bucket, "bad/"), "bad") / part)

    ended(world, "good")

    assert {world.ledger.view(job).status for job in ("bad", "good")} == {JobStatus.FINISHED}
    assert "event=job_lists_incomplete job=bad" in log_text(caplog)
    assert outcome_log.SUCCESS in folder(world, "good", "good") and outcome_log.SUCCESS not in folder(
        world, "bad", "bad"
    )


def test_a_bucket_that_is_down_delays_its_own_job_only(world, monkeypatch):
    for job in ("bad", "good"):
        view = world.submit(3 if job == "bad" else 6, job=job, dest=job)
        run(world.ledger, view, range(view.chunks))
    put = world.store.put

    def sometimes(place, *args, **how):
        if place.key.startswith("bad/"):
            raise StoreUnavailable("503")
        return put(place, *args, **how)

    monkeypatch.setattr(world.store, "put", sometimes)
    with pytest.raises(StoreUnavailable):
        world.bookkeeper.tick()

    assert world.ledger.view("good").status is JobStatus.FINISHED
    assert world.ledger.view("bad").status is JobStatus.CLOSING


def test_a_bucket_that_is_away_is_tried_once_and_last(world, monkeypatch):
    """Each try may take half a minute, during which no other job ends."""
    world.store.ensure_bucket(f"{world.bucket}-away")
    away = replace(world, bucket=f"{world.bucket}-away")
    for harness, job, total in ((away, "one", 3), (away, "two", 3), (world, "good", 6)):
        view = harness.submit(total, job=job, dest=job)
        run(world.ledger, view, range(view.chunks))
    put, places = world.store.put, []

    def sometimes(place, *args, **how):
        places.append(place.bucket)
        if place.bucket == away.bucket:
            raise StoreUnavailable("no answer", bucket=place.bucket)
        return put(place, *args, **how)

    monkeypatch.setattr(world.store, "put", sometimes)
    with pytest.raises(StoreUnavailable):
        world.bookkeeper.tick()
    assert places.count(away.bucket) == 1
    view = world.submit(6, job="next", dest="next")
    run(world.ledger, view, range(view.chunks))
    places.clear()
    with pytest.raises(StoreUnavailable):
        world.bookkeeper.tick()

    assert places.index(away.bucket) == len(places) - 1
    assert [world.ledger.view(job).status for job in ("good", "next")] == [JobStatus.FINISHED] * 2
    assert [world.ledger.view(job).status for job in ("one", "two")] == [JobStatus.CLOSING] * 2
    monkeypatch.setattr(world.store, "put", put)
    world.bookkeeper.tick()
    assert [world.ledger.view(job).status for job in ("one", "two")] == [JobStatus.FINISHED] * 2


def test_a_listing_whose_producer_is_gone_is_abandoned(world, monkeypatch, caplog):
    world.ledger.create("left", world.submit(3).options)
    world.bookkeeper.tick()
    assert world.ledger.view("left").status is JobStatus.LISTING
    monkeypatch.setattr(bookkeeper, "LISTING_SILENT_SECONDS", 0)

    world.bookkeeper.tick()

    assert world.ledger.view("left").reason == "its producer went away while listing"
    assert [job.view.job for job in world.backlog.active()] == ["job"]
    assert "event=listing_abandoned job=left" in log_text(caplog)


def test_a_listing_that_is_complete_in_s3_is_completed_in_redis(world, monkeypatch, caplog):
    """A failover has undone the end of the listing, or the producer died just before it."""
    options = world.submit(3).options
    for job in ("early", "crooked", "left"):
        world.ledger.create(job, options)
    sizes = {"total": 3, "chunk_images": 2, "bytes": 15}
    outcome_log.write_json(world.store, options.dest, "crooked", outcome_log.REQUEST, sizes | {"total": "many"})
    outcome_log.write_json(world.store, options.dest, "left", outcome_log.REQUEST, sizes)
    monkeypatch.setattr(bookkeeper, "LISTED_SECONDS", 0)

    world.bookkeeper.tick()

    view = world.ledger.view("left")
    assert (view.status, view.total, view.chunk_images, view.bytes) == (JobStatus.RUNNING, 3, 2, 15)
    assert {world.ledger.view(job).status for job in ("early", "crooked")} == {JobStatus.LISTING}
    assert "event=listing_completed job=left" in log_text(caplog)


def test_an_end_that_no_replica_confirms_is_logged_and_stands(world, monkeypatch, caplog):
    run(world.ledger, world.submit(3), [0])
    monkeypatch.setattr(world.ledger.connection, "_wait_replicas", 1)
    monkeypatch.setattr(world.ledger.connection, "_wait_milliseconds", 50)
    counted = metrics.ENDS_UNCONFIRMED._value.get()

    assert ended(world).status is JobStatus.FINISHED
    assert "event=job_end_unconfirmed job=job" in log_text(caplog)
    assert metrics.ENDS_UNCONFIRMED._value.get() == counted + 1


def test_many_failures_take_no_more_memory_than_few(world):
    """One byte per image, parts of results, and nothing that grows with the failures."""
    few, many = 20_000, 40_000  # the list of failures of both is longer than one part of an upload

    def peak(job: str, total: int) -> int:
        view = world.submit(total, chunk_images=200, job=job, dest=job)
        dest = type(world.out)(world.bucket, f"{job}/")
        for first in range(0, total, 1000):
            batch = [outcome(index, FAILED) for index in range(first, first + 1000)]
            lines = [o.model_copy(update={"message": "long " * 40}).model_dump_json() for o in batch]
            outcome_log.write_part(world.store, dest, job, epoch=0, first_id=f"{first}-0", lines=lines)
        keys = redis_keys.job_keys(world.ledger.connection.prefix, job)
        world.ledger.connection.client.set(
            keys.images, outcome_codec.packed(bytes([outcome_codec.NUMBERS[FAILED]]) * total)
        )
        view = view.model_copy(update={"failed": total, "ending": "finished"})
        tracemalloc.start()
        job_lists.write_lists(world.store, world.ledger, view, None)
        _, top = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        failed = manifest.job_folder(dest, job) / "failed.jsonl"
        assert world.store.head(failed).size > 200 * total
        return top

    small = peak("few", few)
    assert peak("many", many) < small + 4 * many + 2**20


def test_a_stopped_job_waits_for_the_worker_that_holds_it_however_slow_its_image_is(world):
    view = world.submit(4)
    chunk = message(view, 0)
    world.chunks.start(chunk, HERE)
    delivered = json.dumps([{"headers": {"id": redis_keys.task_id("job", 0, 0)}}, "", redis_keys.QUEUE])
    unacked, client = redis_keys.unacked(world.settings.redis.prefix), world.ledger.connection.client
    client.hset(unacked, "tag", delivered)
    world.ledger.cancel("job")

    assert ended(world).status is JobStatus.STOPPING, "silent for longer than it may be, but not gone"

    lease(world.ledger, chunk).record([outcome(0)])  # the slow image, whose output has just been written
    client.hdel(unacked, "tag")
    view = ended(world)
    assert (view.status, view.ok, view.cancelled) == (JobStatus.CANCELLED, 1, 3)
    check_lists(world, view)


def test_jobs_that_end_together_do_not_hold_up_those_of_another_tenant(world, monkeypatch):
    """A call begins no further job after a time; here it is over at once, so a call ends one job."""
    monkeypatch.setattr(bookkeeper, "TICK_SECONDS", 0)
    tenants = JobSettings(tenants=(f"{world.bucket}/a/", f"{world.bucket}/b/"))
    books = Bookkeeper(world.store, world.ledger, tenants, 0)
    for job in ("a0", "a1", "a2", "a3", "b"):
        run(world.ledger, world.submit(3, job=job, dest=f"{job[0]}/{job}"), [0])

    ended = []
    for _ in range(5):
        assert books.tick() is False, "the next call must come soon"
        ended.append({job.job for job in world.ledger.jobs(10) if job.ended} - set().union(*ended))

    assert {frozenset(jobs) for jobs in ended} == {frozenset({job}) for job in ("a0", "a1", "a2", "a3", "b")}
    assert "b" in ended[0] | ended[1]
