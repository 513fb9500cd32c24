"""The Python API with a real Redis and S3. There is no worker: the tests record its outcomes."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import producer
from producer import Client, Filters, JobPolicy, JobStatus, OutcomeKind, OutputOptions, SourceSpec
from support.jobs import run
from support.scheduler_harness import SchedulerHarness
from worker.contract.errors import JobNotFound, JobStateError, SettingsError, SourceError
from worker.contract.queue import celery_app
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest

KEYS = ["a.jpg", "d/b.png", "d/c*[1].jpg", "d/line\nbreak.jpg"]


@pytest.fixture
def world(installation, ledger, store):
    app = celery_app.make_celery(installation.settings)
    yield SchedulerHarness(installation.settings, installation.bucket, ledger, store, app)
    app.close()


@pytest.fixture
def client(world):
    with Client(world.settings) as client:
        yield client


@pytest.fixture
def source(world) -> str:
    for key in KEYS:
        world.store.put(S3Url(world.bucket, f"in/{key}"), b"12345", content_type="image/jpeg")
    return f"s3://{world.bucket}/in/"


def keys_of(world: SchedulerHarness, view) -> list[str]:
    return [entry.key for entry in manifest.read(world.store, world.out, view.job, view.total)]


def end(world: SchedulerHarness) -> None:
    for _ in range(3):
        world.bookkeeper.tick()


def test_every_public_name_can_be_imported():
    for name in producer._PUBLIC_NAMES:
        assert getattr(producer, name).__name__ == name
    assert set(producer._PUBLIC_NAMES) <= set(dir(producer))
    with pytest.raises(AttributeError, match="no attribute 'Clown'"):
        producer.Clown  # noqa: B018


def test_submit_returns_the_job(client, world, source):
    done = client.submit(source, str(world.out), outputs=OutputOptions(outputs=("cutout",), format="webp"))

    assert done.job == done.view.job and not done.joined
    assert client.status(done.job) == done.view and client.jobs()[0].job == done.job
    assert keys_of(world, done.view) == KEYS
    assert (done.view.options.format, done.view.policy.skip_existing) == ("webp", False)


def test_given_keys_are_submitted_unchanged(client, world, source):
    wanted = [KEYS[3], KEYS[2], f"{source}a.jpg"]

    done = client.submit(source, str(world.out), keys=iter(wanted), filters=Filters(exclude=("a.jpg",)))

    assert keys_of(world, done.view) == [KEYS[3], KEYS[2]]


def test_filters_policy_and_a_plan_reach_the_job(client, world, source):
    with client.plan(source, str(world.out), filters=Filters(include=("d/*",))) as plan:
        assert plan.images == 3
        assert client.estimate(plan).processes == 0
    spec = SourceSpec((source,), filters=Filters(limit=1))

    done = client.submit(spec, str(world.out), policy=JobPolicy(priority="high", max_failed=3))

    assert (done.view.total, done.view.policy.max_failed) == (1, 3)
    with pytest.raises(SettingsError, match="SourceSpec"):
        client.submit(spec, str(world.out), keys=["a.jpg"])
    with pytest.raises(SourceError, match="the list of keys is empty"):
        client.submit(source, str(world.out), keys=[])


def test_a_local_folder_is_uploaded(client, world, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"12345")

    done = client.submit(tmp_path / "photos", str(world.out))

    assert world.store.head(done.view.options.source / "a.jpg").size == 5

    for several in ([str(tmp_path / "photos" / "a.jpg")], (tmp_path / "photos" / "a.jpg", tmp_path / "b.jpg")):
        (tmp_path / "b.jpg").write_bytes(b"12345")
        with client.plan(several, str(world.out)) as plan:
            assert plan.images == len(several)


def test_one_key_may_be_given_as_a_text(client, world, source):
    assert keys_of(world, client.submit(source, str(world.out), keys="a.jpg").view) == ["a.jpg"]
    with pytest.raises(SettingsError, match="policy takes JobPolicy"):
        client.submit(source, str(world.out), policy={"priority": "high"})


def test_programs_with_the_same_job_key_submit_one_job(world, source):
    def submit(_: int):
        with Client(world.settings) as client:
            return client.submit(source, str(world.out), job_key="order 7")

    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(submit, range(4)))

    assert len({one.job for one in done}) == 1 and sorted(one.joined for one in done) == [False, True, True, True]
    assert len(world.ledger.jobs(10)) == 1
    with Client(world.settings) as client:
        assert client.find("order 7").job == done[0].job
        assert client.find("order 8") is None


def test_results_have_each_image_once_with_its_final_outcome(client, world):
    view = world.submit(12)
    run(world.ledger, view, [0], bad=[1])
    for _ in range(2):  # in Redis, and in S3 as well
        assert [(o.index, o.kind) for o in client.results("job")] == [(2, "ok"), (1, "failed"), (0, "ok")]
        world.bookkeeper._collect(world.backlog.active()[0])
    run(world.ledger, view, [1])
    client.cancel("job", "enough")
    end(world)

    found = {outcome.index: outcome for outcome in client.results("job")}

    assert Counter(o.kind for o in client.results("job")) == {"ok": 5, "failed": 1, "cancelled": 6}
    assert set(found) == set(range(12)) and all(o.key == f"{o.index}.jpg" for o in found.values())
    assert (found[1].code, found[1].message, found[2].outputs) == ("undecodable", "why", ("2.png",))
    assert [o.index for o in client.results("job", kinds=["failed", OutcomeKind.DEAD])] == [1]
    assert [o.index for o in client.results("job", kinds=["cancelled"])] == list(range(6, 12))
    assert [o.index for o in client.results("job", kinds="failed")] == [1]
    with pytest.raises(SettingsError, match="clown"):
        client.results("job", kinds=["clown"])


def test_a_retried_image_has_its_last_outcome(client, world):
    run(world.ledger, world.submit(3), [0], bad=[1])
    end(world)
    assert client.wait("job").failed == 1

    view = client.retry("job")
    assert (view.status, view.epoch) == (JobStatus.RUNNING, 1)
    run(world.ledger, view, [0])
    end(world)

    assert [(o.index, o.kind) for o in client.results("job", kinds=("ok", "failed"))] == [
        (1, "ok"),
        (2, "ok"),
        (0, "ok"),
    ]
    assert client.retry("job").status is JobStatus.FINISHED  # there is nothing left to retry


def test_waiting_ends_with_the_job_or_with_the_time(client, world):
    run(world.ledger, world.submit(3), [0])
    snapshots = []
    with pytest.raises(
        TimeoutError, match=r"job job is still \w+ after 0.1 s, with 3 of 3 images done: 3 ok; it continues"
    ):
        client.wait("job", timeout=0.1, poll_seconds=0.05, on_progress=snapshots.append)
    assert snapshots[0].view.done == 3
    end(world)

    assert client.wait("job", timeout=0.1).status is JobStatus.FINISHED


def test_a_job_is_paused_resumed_and_cancelled(client, world):
    world.submit(3)

    assert client.pause("job").status is JobStatus.PAUSED
    assert client.resume("job").status is JobStatus.RUNNING
    assert client.cancel("job").reason == "cancelled by a program"
    with pytest.raises(JobStateError, match="can't be paused"):
        client.pause("job")
    with pytest.raises(JobNotFound, match="no job 'nope'"):
        client.status("nope")


def test_a_lost_job_is_recovered_and_downloaded(client, world, tmp_path: Path):
    run(world.ledger, world.submit(2), [0])
    end(world)
    for index in range(2):
        world.store.put(world.out / f"{index}.png", b"mask", content_type="image/png")
    world.ledger.forget("job")

    assert client.recover("job", str(world.out)).status is JobStatus.FINISHED
    fetched = []
    done = client.download("job", str(tmp_path / "masks"), on_file=fetched.append)
    assert (done.folder, done.files, done.gone) == (tmp_path / "masks", 2, 0)
    assert {one.path.read_bytes() for one in fetched} == {b"mask"}

    world.store.delete(world.out / "0.png")
    assert client.download("job", tmp_path / "again").gone == 1
    assert (tmp_path / "again" / "1.png").read_bytes() == b"mask"  # without iterating over anything
