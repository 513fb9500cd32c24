"""Submitting, with a real store, ledger and queue; no worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest
import redis

from producer import submit
from producer.sources.item import Skip
from producer.submit import Submitter, new_job_id
from support.installation import Installation
from worker.contract import redis_keys
from worker.contract.errors import (
    BrokerUnavailable,
    JobNotFound,
    OutputCollision,
    ServiceError,
    SettingsError,
    SourceError,
    StoreUnavailable,
)
from worker.contract.job import JobStatus
from worker.contract.ledger import records
from worker.contract.ledger.backlog import Backlog
from worker.contract.messages import ChunkMessage, JobOptions
from worker.contract.outputs import OutputOptions
from worker.contract.queue import celery_app, dispatcher
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectInfo

MASK = OutputOptions()
WINDOW = dispatcher.window(workers=0)
"""Chunks published while no worker is live."""


@pytest.fixture
def submitter_of(installation: Installation, store, ledger) -> Iterator[Callable[..., Submitter]]:
    app = celery_app.make_celery(installation.settings)
    yield lambda **changes: Submitter(
        **({"store": store, "ledger": ledger, "celery": app, "chunk_images": 16} | changes)
    )
    app.close()


@pytest.fixture
def queue(installation: Installation) -> Callable[[], list[ChunkMessage]]:
    """Return the chunk messages in the queue, oldest first."""

    def read() -> list[ChunkMessage]:
        app = celery_app.make_celery(installation.settings)
        with redis.Redis.from_url(installation.settings.redis.secret_url(), decode_responses=True) as server:
            raw = server.lrange(f"{installation.settings.redis.prefix}{redis_keys.QUEUE}", 0, -1)
        with app.connection_for_read() as connection:
            channel = connection.default_channel
            bodies = [channel.Message(json.loads(line), channel=channel).payload for line in reversed(raw)]
        app.close()
        return [ChunkMessage.read(body[0][0]) for body in bodies]

    return read


def source_of(store, installation: Installation, keys: list[str]) -> str:
    for key in keys:
        store.put(S3Url(installation.bucket, f"in/{key}"), b"12345", content_type="image/jpeg")
    return f"s3://{installation.bucket}/in/"


def dest_of(installation: Installation) -> str:
    return f"s3://{installation.bucket}/out"


def one_job(ledger):
    [view] = ledger.jobs(10)
    return view


@pytest.mark.parametrize(("images", "chunks"), [(1, 1), (15, 1), (16, 1), (17, 2), (33, 3)])
def test_a_job_has_its_size_and_its_images_in_order(submitter_of, installation, queue, images, chunks):
    submitter = submitter_of()
    store, ledger = submitter.store, submitter.ledger
    keys = [f"{number:03d}.jpg" for number in range(images)]

    view = submitter.submit(source_of(store, installation, keys), dest_of(installation), MASK).view

    assert (view.status, view.total, view.chunks, view.bytes) == (JobStatus.RUNNING, images, chunks, 5 * images)
    assert (view.done, view.chunk_images, str(view.options.dest)) == (0, 16, f"{dest_of(installation)}/")
    assert view == ledger.view(view.job)
    entries = list(manifest.read(store, S3Url.folder(dest_of(installation)), view.job, images))
    assert [(entry.key, entry.size) for entry in entries] == [(key, 5) for key in keys]
    assert all(entry.etag for entry in entries)
    messages = queue()
    assert [(m.job, m.chunk, m.start) for m in messages] == [(view.job, n, 16 * n) for n in range(min(chunks, WINDOW))]
    assert [key for message in messages for key in message.keys] == keys[: 16 * WINDOW]


def test_no_more_than_the_window_is_published(submitter_of, store, installation, queue):
    keys = [f"{number:03d}.jpg" for number in range(10)]
    progress = []

    view = (
        submitter_of(chunk_images=1, on_progress=lambda phase, count: progress.append((phase, count)))
        .submit(source_of(store, installation, keys), dest_of(installation), MASK)
        .view
    )

    assert [message.keys for message in queue()] == [(key,) for key in keys[:WINDOW]]
    assert (view.chunks, view.cursor) == (10, WINDOW)
    assert progress == [("listed", 10)]


def test_the_first_chunk_of_a_new_job_precedes_those_of_running_jobs(submitter_of, store, installation):
    source = source_of(store, installation, [f"{number:03d}.jpg" for number in range(10)])
    submitter = submitter_of(chunk_images=1)
    submitter.submit(source, dest_of(installation), MASK)

    view = submitter.submit(source, f"s3://{installation.bucket}/other", MASK).view

    client, prefix = submitter.ledger.connection.client, installation.settings.redis.prefix
    lengths = {name: client.llen(redis_keys.queue(prefix, name)) for name in redis_keys.QUEUES}
    assert lengths == {redis_keys.EXPRESS_QUEUE: 1, redis_keys.QUEUE: WINDOW}
    assert view.cursor == 1


def test_other_files_are_skipped_and_counted(submitter_of, store, installation):
    source = source_of(store, installation, ["a.jpg", "notes.txt", "d/b.PNG", "Thumbs.db"])

    submitted = submitter_of().submit(source, dest_of(installation), MASK)

    assert (submitted.view.total, submitted.skipped.total()) == (2, 2)


def test_a_local_folder_is_uploaded_first(submitter_of, store, installation, queue, tmp_path):
    folder = tmp_path / "photos"
    (folder / "d").mkdir(parents=True)
    contents = {"a 1.jpg": b"one", "d/ü#%+.png": b"three"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "notes.txt").write_text("no image")

    submitted = submitter_of().submit(str(folder), dest_of(installation), MASK)

    view = submitted.view
    assert str(view.options.source).startswith(f"{dest_of(installation)}/_maskmill/uploads/photos-")
    assert (view.total, view.bytes, submitted.skipped.total()) == (2, 8, 1)
    [message] = queue()
    assert set(message.keys) == set(contents)
    origin = view.options.source
    assert {key: store.get(origin / key, max_bytes=99)[0] for key in message.keys} == contents
    assert [item.key for item in store.list(origin)] == sorted(contents)


def test_two_images_with_one_output_key_create_no_job(submitter_of, store, ledger, installation, queue):
    source = source_of(store, installation, ["d/a.jpg", "d/a.png", "x.jpg", "x.png", "y.jpg"])

    with pytest.raises(OutputCollision, match=r"'(d/a|x)\.jpg' and '(d/a|x)\.png'.*2 such outputs"):
        submitter_of().submit(source, dest_of(installation), MASK)

    assert ledger.jobs(10) == queue() == list(store.list(S3Url(installation.bucket, "out/"))) == []


def broken(keys, error):
    """Return a listing that fails after some keys."""

    def listing(folder, **_):
        for key in keys:
            yield ObjectInfo(key, 5, "e", {})
        raise error

    return listing


@pytest.mark.parametrize("error", [StoreUnavailable("S3 answered 503"), KeyboardInterrupt()])
def test_a_listing_that_fails_creates_no_job(submitter_of, ledger, installation, monkeypatch, error):
    submitter = submitter_of()
    monkeypatch.setattr(submitter.store, "list", broken(["a.jpg"], error))

    with pytest.raises(type(error)):
        submitter.submit(f"s3://{installation.bucket}/in/", dest_of(installation), MASK)

    assert ledger.jobs(10) == []


def test_a_broken_link_is_counted_and_left_out(submitter_of, ledger, installation, queue, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"x")
    (folder / "c.jpg").symlink_to(folder / "gone")

    with submitter_of().plan(str(folder), dest_of(installation), MASK) as plan:
        assert plan.skipped[Skip.NOT_A_FILE] == 1
    submitter_of().submit(str(folder), dest_of(installation), MASK)

    assert one_job(ledger).total == 1


def test_a_file_deleted_before_its_upload_cancels_the_job(submitter_of, ledger, installation, queue, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    submitter = submitter_of()

    with submitter.plan(str(tmp_path), dest_of(installation), MASK) as plan:
        (tmp_path / "b.jpg").unlink()
        with pytest.raises(SourceError, match=r"b\.jpg: No such file"):
            submitter.start(plan)

    view = one_job(ledger)
    assert view.status is JobStatus.CANCELLED and view.total is None and view.finished_at
    assert view.reason.startswith("not submitted: ") and "b.jpg" in view.reason
    assert queue() == []


@pytest.mark.parametrize(("output", "looks"), [("a.png", True), ("A.png", True), ("_maskmill/old/x.png", False)])
def test_existing_outputs_are_found_behind_any_number_of_other_objects(
    submitter_of, store, installation, output, looks
):
    for key in (output, "_maskmill/uploads/p-1/1.jpg", "_maskmill/uploads/p-1/2.jpg"):
        store.put(S3Url(installation.bucket, f"out/{key}"), b"1", content_type="image/png")

    view = submitter_of().submit(source_of(store, installation, ["a.jpg"]), dest_of(installation), MASK).view

    assert view.policy.skip_existing is looks, "without outputs, workers need not look for them"


def test_a_known_job_key_skips_the_listing(submitter_of, store, ledger, installation, monkeypatch):
    source = source_of(store, installation, ["a.jpg"])
    first = submitter_of().submit(source, dest_of(installation), MASK, job_key="nightly")
    monkeypatch.setattr(store, "list", broken([], AssertionError("listed again")))

    again = submitter_of().submit(source, dest_of(installation), MASK, job_key="nightly")

    assert again.joined and again.view.job == first.view.job


@pytest.fixture
def being_listed(ledger, installation, monkeypatch) -> str:
    """A job with the key `nightly` whose producer has just sent a heartbeat and counts as dead 1 s after it."""
    monkeypatch.setattr(submit, "LISTING_SILENT_SECONDS", 1.0)
    job = ledger.claim("nightly", new_job_id())
    ledger.create(job, JobOptions(source=f"s3://{installation.bucket}/in/", dest=dest_of(installation)))
    return job


def test_a_job_whose_producer_just_died_is_replaced(submitter_of, store, ledger, installation, being_listed):
    submitted = submitter_of().submit(
        source_of(store, installation, ["a.jpg"]), dest_of(installation), MASK, job_key="nightly"
    )

    assert not submitted.joined and submitted.view.status is JobStatus.RUNNING
    assert ledger.view(being_listed).status is JobStatus.CANCELLED
    assert ledger.holder("nightly") == submitted.view.job


def test_a_job_whose_producer_still_lists_is_joined(submitter_of, store, ledger, installation, being_listed):
    alive = threading.Timer(0.5, ledger.renew_listing, (being_listed,))
    alive.start()

    submitted = submitter_of().submit(
        source_of(store, installation, ["a.jpg"]), dest_of(installation), MASK, job_key="nightly"
    )

    alive.join()
    assert submitted.joined and submitted.view.job == being_listed


def test_an_unreachable_queue_leaves_the_job_to_the_reconciler(submitter_of, store, ledger, installation, pauses):
    gone = installation.settings.redis.model_copy(update={"url": "redis://127.0.0.1:1/0"})
    app = celery_app.make_celery(installation.settings.model_copy(update={"redis": gone}))

    with pytest.raises(BrokerUnavailable, match="runs as soon as the queue is back"):
        submitter_of(celery=app).submit(source_of(store, installation, ["a.jpg"]), dest_of(installation), MASK)

    app.close()
    assert pauses.paused > ledger.connection.failover_seconds - 10, "it was not waited for during a failover"
    view = one_job(ledger)
    assert (view.status, view.total) == (JobStatus.RUNNING, 1)
    assert len(Backlog(ledger.connection).silent(view.job, 0)) == 1, "the reconciler must find what was not published"


@pytest.mark.parametrize("error", [StoreUnavailable("503"), KeyError("ETag")])
def test_a_submission_that_dies_after_registering_leaves_a_job_that_runs(
    submitter_of, ledger, installation, monkeypatch, error
):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("producer.submit.Dispatcher.send", broken)
    submitter = submitter_of()

    with pytest.raises(type(error), match="its workers will run it" if isinstance(error, ServiceError) else "ETag"):
        submitter.submit(source_of(submitter.store, installation, ["a.jpg"]), dest_of(installation), MASK)

    assert one_job(ledger).status is JobStatus.RUNNING
    [job] = Backlog(ledger.connection).active()
    assert (job.outstanding, job.waiting) == (0, 1), "the feeder publishes what was taken and not published"


def test_beside_more_jobs_than_are_read_at_once_the_feeder_publishes(
    submitter_of, ledger, installation, queue, monkeypatch
):
    """The job may have to wait for one that was not read."""
    monkeypatch.setattr(records, "MAX_ACTIVE", 1)
    submitter = submitter_of()
    for name in ("first", "second"):
        submitter.submit(
            source_of(submitter.store, installation, ["a.jpg"]), f"s3://{installation.bucket}/{name}/", MASK
        )

    assert len(queue()) == 1
    assert sorted((job.outstanding, job.waiting) for part in Backlog(ledger.connection).parts() for job in part) == [
        (0, 1),
        (1, 0),
    ]


def test_a_job_cancelled_while_it_is_uploaded_is_not_started(submitter_of, ledger, installation, queue, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")

    def cancel(phase, count):
        if phase == "uploaded":
            ledger.abandon(one_job(ledger).job, "by its owner")

    with pytest.raises(SourceError, match="was cancelled while it was being listed"):
        submitter_of(on_progress=cancel).submit(str(tmp_path), dest_of(installation), MASK)

    assert one_job(ledger).status is JobStatus.CANCELLED
    assert queue() == []


@pytest.mark.parametrize("keys", [[], ["notes.txt"]])
def test_a_source_without_images_is_reported_and_creates_no_job(submitter_of, store, ledger, installation, keys):
    why = "names must end in" if keys else "it is empty"
    source = source_of(store, installation, keys)

    with pytest.raises(SourceError, match=f"no images under {source}: {why}"):
        submitter_of().submit(source, dest_of(installation), MASK)

    assert ledger.jobs(10) == []


def test_a_missing_source_or_bucket_creates_no_job(submitter_of, store, ledger, installation, tmp_path):
    source = source_of(store, installation, ["a.jpg"])
    bad = [
        (source, "s3://there-is-no-such-bucket/out/", ServiceError, "bucket 'there-is-no-such-bucket'"),
        ("s3://there-is-no-such-bucket/in/", dest_of(installation), ServiceError, "bucket 'there-is-no-such-bucket'"),
        (str(tmp_path / "none"), dest_of(installation), SourceError, "neither an s3:// URL nor a folder"),
        (source, str(tmp_path), SourceError, "not an S3 URL"),
        (source, f"{source}masks/", SettingsError, "overlap"),
    ]

    for source, dest, error, match in bad:
        with pytest.raises(error, match=match):
            submitter_of().submit(source, dest, MASK)

    assert ledger.jobs(10) == []
    with pytest.raises(JobNotFound):
        ledger.view("job")


def test_job_ids_are_valid_and_unique():
    ids = [new_job_id() for _ in range(200)]

    assert len(set(ids)) == 200
    for job in ids:
        ChunkMessage(job=job, chunk=0, start=0, keys=("a",))
