"""Jobs controlled by the command, as a user types it, with a worker at work."""

from __future__ import annotations

import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from support import commands
from support.faults import FAST, IN_FLIGHT, Faults, broker_empty, picture, progress
from support.proxy import Proxy
from support.shared_workers import Mistreated, placed
from support.stack import Installation, make_bucket, new_installation
from worker.contract import redis_keys
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone

IMAGES, CHUNK = 30, 5
IMAGE_SECONDS = 0.4
WAIT = ("--wait", "--timeout", "90", "--json")
CANCELLED, THRESHOLD, SOME_FAILED = 5, 4, 3


@pytest.fixture(scope="module")
def under(
    standalone: Standalone, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mistreated]:
    """One worker for the module; `in/` has `IMAGES` pictures."""
    folder = tmp_path_factory.mktemp("workers")
    installation = placed(new_installation(standalone), FAST | cache | {"MASKMILL_JOBS__CHUNK_IMAGES": str(CHUNK)})
    make_bucket(installation)
    with Mistreated.start(installation, Faults(folder, image_seconds=IMAGE_SECONDS), folder / "worker.log") as under:
        under.upload(IMAGES)
        yield under


@pytest.fixture
def ledger(under: Mistreated) -> Iterator[Ledger]:
    with Ledger(under.installation.settings.redis) as ledger:
        yield ledger


@pytest.fixture
def store(under: Mistreated) -> Iterator[ObjectStore]:
    with ObjectStore(under.installation.settings.s3) as store:
        yield store


@pytest.fixture
def begun(under: Mistreated) -> Callable[[], list[str]]:
    """Keys of the images whose work began since the test did."""

    def executed() -> list[str]:
        return sorted((under.faults.executions() - before).elements())

    before = under.faults.executions()
    return executed


def producer(under: Mistreated, *arguments: str, installation: Installation | None = None) -> commands.Result:
    return commands.run("producer", *arguments, settings=(installation or under.installation).environment)


def submit(under: Mistreated, *options: str, folder: str = "in", dest: str = "") -> str:
    """The id of a job that was submitted without waiting for it."""
    done = producer(under, "submit", *places(under, folder, dest), "--json", *options)
    assert done.code == 0, done.err
    return done.lines[0]["job"]


def places(under: Mistreated, folder: str = "in", dest: str = "") -> tuple[str, str]:
    bucket = under.installation.bucket
    return f"s3://{bucket}/{folder}/", f"s3://{bucket}/{dest or f'out-{secrets.token_hex(4)}'}/"


def outputs(store: ObjectStore, ledger: Ledger, job: str) -> set[str]:
    """Every object that the workers wrote for images of a job."""
    dest = ledger.view(job).options.dest
    return {item.key for item in store.list(dest) if not item.key.startswith(redis_keys.JOB_PREFIX)}


def listed(store: ObjectStore, ledger: Ledger, job: str) -> set[str]:
    """Names of the files about a job."""
    folder = job_folder(ledger.view(job).options.dest, job)
    return {item.key.partition("/")[0] for item in store.list(folder)}


def test_cancel_stops_within_an_image_and_nothing_is_written_afterwards(under, ledger, store, begun):
    job = submit(under)
    progress(ledger, job, 3)

    done = producer(under, "cancel", job, "--reason", "wrong prefix", *WAIT)
    reached, started = outputs(store, ledger, job), begun()
    time.sleep(5 * IMAGE_SECONDS)

    assert done.code == CANCELLED, done.err
    view = ledger.view(job)
    assert (view.status, view.reason) == (JobStatus.CANCELLED, "wrong prefix")
    assert view.done == IMAGES and 3 <= view.ok < IMAGES - CHUNK and view.cancelled == IMAGES - view.ok
    assert len(reached) == view.ok
    assert (outputs(store, ledger, job), begun()) == (reached, started), "something was done after the end"
    assert {"failed.jsonl", "manifest.json", "succeeded-00000.jsonl.gz", "cancelled-00000.jsonl.gz"} <= listed(
        store, ledger, job
    )
    assert "_SUCCESS" not in listed(store, ledger, job)
    assert broker_empty(ledger)
    assert producer(under, "cancel", job).code == 0, "cancelled twice is cancelled"
    assert producer(under, "pause", job).code == 1


def test_what_was_cancelled_is_done_later_and_nothing_twice(under, ledger, store, begun):
    job = submit(under)
    progress(ledger, job, 3)
    assert producer(under, "cancel", job, *WAIT).code == CANCELLED
    first = outputs(store, ledger, job)

    done = producer(under, "retry", job, "--cancelled", *WAIT)

    assert done.code == 0, done.err
    assert len(begun()) <= IMAGES + IN_FLIGHT, "more was done twice than what was begun ahead and not wanted"
    second = outputs(store, ledger, job)
    assert len(second) == IMAGES and first <= second
    assert "_SUCCESS" in listed(store, ledger, job)
    assert producer(under, "retry", job, "--cancelled").code == 0, "nothing is left to do"


def test_pause_stops_within_an_image_and_resume_goes_on(under, ledger, begun):
    job = submit(under)
    progress(ledger, job, 3)

    assert producer(under, "pause", job).code == 0
    time.sleep(2 * IMAGE_SECONDS + 0.5)
    reached = ledger.view(job)
    time.sleep(1.5)
    assert ledger.view(job) == reached and reached.status is JobStatus.PAUSED
    assert reached.done < IMAGES - CHUNK
    assert producer(under, "retry", job).code == 1, "only what has ended can be run again"
    keys = redis_keys.job_keys(under.installation.settings.redis.prefix, job)
    assert set(ledger.link.client.hvals(keys.attempts)) <= {"0", "1"}

    done = producer(under, "resume", job, *WAIT)

    assert done.code == 0, done.err
    assert under.settle(job).view.ok == IMAGES
    assert len(begun()) <= IMAGES + IN_FLIGHT, "more was done twice than what was begun ahead and not wanted"


@pytest.mark.long
def test_a_paused_job_can_be_cancelled(under, ledger):
    job = submit(under)
    progress(ledger, job, 1)
    producer(under, "pause", job)

    done = producer(under, "cancel", job, *WAIT)

    assert done.code == CANCELLED
    assert ledger.view(job).done == IMAGES


@pytest.fixture
def broken(under: Mistreated, store: ObjectStore) -> tuple[str, list[S3Url]]:
    """A folder whose second chunk has four files that are no pictures."""
    folder = f"broken-{secrets.token_hex(4)}"
    places = [S3Url(under.installation.bucket, f"{folder}/{index}.png") for index in range(2 * CHUNK)]
    bad = places[CHUNK : CHUNK + 4]
    for place in places:
        store.put(place, b"no picture" if place in bad else picture(), content_type="image/png")
    return folder, bad


def test_retry_runs_the_failures_again_and_nothing_else(under, ledger, store, broken, begun):
    folder, bad = broken
    first = producer(under, "submit", *places(under, folder), *WAIT)
    job = first.lines[0]["job"]
    assert first.code == SOME_FAILED, first.err
    assert ledger.view(job).codes == {"undecodable": 4}
    for place in bad:
        store.put(place, picture(), content_type="image/png")

    done = producer(under, "retry", job, "--failed", *WAIT)

    assert done.code == 0, done.err
    view = under.settle(job).view
    assert (view.ok, view.failed, view.epoch, view.codes) == (10, 0, 1, {})
    assert len(begun()) == 10 + len(bad)
    failed, _ = store.get(job_folder(view.options.dest, job) / "failed.jsonl", max_bytes=1000)
    assert failed == b"" and "_SUCCESS" in listed(store, ledger, job)


@pytest.mark.parametrize(
    ("threshold", "code"),
    [
        ("20%", THRESHOLD),
        ("4", SOME_FAILED),
        pytest.param("2", THRESHOLD, marks=pytest.mark.long),
        pytest.param("50%", SOME_FAILED, marks=pytest.mark.long),
    ],
)
def test_the_error_threshold_stops_a_job_that_goes_wrong(under, ledger, broken, threshold, code):
    done = producer(under, "submit", *places(under, broken[0]), "--error-threshold", threshold, *WAIT)

    view = ledger.view(done.lines[0]["job"])
    assert done.code == code, done.err
    assert view.status is (JobStatus.STOPPED if code == THRESHOLD else JobStatus.FINISHED)
    assert view.done == 10 and ("were allowed" in view.reason) == (code == THRESHOLD)
    with ObjectStore(under.installation.settings.s3) as store:
        assert "manifest.json" in listed(store, ledger, view.job)
    assert broker_empty(ledger)


def test_priority_decides_who_gets_more(under, ledger):
    under.upload(IMAGES + 15, "many")
    jobs = {}
    for priority in ("low", "high"):
        jobs[priority] = submit(under, "--priority", priority, folder="many")
        ledger.pause(jobs[priority])  # until both are there: a command may take as long to start as a job to run
    for job in jobs.values():
        ledger.resume(job)

    for job in jobs.values():
        assert under.settle(job).view.ok == IMAGES + 15

    low, high = (ledger.view(jobs[priority]) for priority in ("low", "high"))
    assert low.created_at < high.created_at and high.completed_at < low.completed_at


def test_a_run_again_does_only_what_changed(under, ledger, store, begun):
    folder, dest = f"again-{secrets.token_hex(4)}", f"again-out-{secrets.token_hex(4)}"
    sources = [S3Url(under.installation.bucket, f"{folder}/{index}.png") for index in range(6)]
    for place in sources:
        store.put(place, picture(), content_type="image/png")

    def run(*options: str) -> tuple[dict, int]:
        before = len(begun())
        done = producer(under, "submit", *places(under, folder, dest), *options, *WAIT)
        assert done.code == 0, done.err
        return done.lines[-1], len(begun()) - before

    first, executed = run()
    assert (first["ok"], first["skipped"], executed) == (6, 0, 6)

    second, executed = run()
    assert (second["ok"], second["skipped"], executed) == (0, 6, 0)

    store.put(sources[2], picture(80), content_type="image/png")  # another picture
    store.delete(S3Url(under.installation.bucket, f"{dest}/4.png"))  # an output that got lost
    third, executed = run()
    assert (third["ok"], third["skipped"], executed) == (2, 4, 2)

    fourth, executed = run("--force")
    assert (fourth["ok"], fourth["skipped"], executed) == (6, 0, 6)


def test_two_jobs_with_one_destination_run_one_after_the_other(under, ledger):
    dest = f"both-{secrets.token_hex(4)}"
    first = submit(under, dest=dest)
    done = producer(under, "submit", *places(under, dest=dest), "--force", "--json")
    second = done.lines[0]["job"]

    assert done.lines[0]["waits_for"] == first
    progress(ledger, first, 1)
    assert ledger.view(second).started_at is None
    for job in (first, second):
        commands.wait_for(lambda job=job: ledger.view(job).ended, f"job {job} to end", 90)
    one, two = ledger.view(first), ledger.view(second)
    assert one.ok == two.ok == IMAGES
    assert one.completed_at <= two.started_at


def test_two_producers_with_one_key_make_one_job(under, ledger, begun):
    key, where = f"nightly-{secrets.token_hex(4)}", places(under)
    results: list[commands.Result] = []

    def submit_it() -> None:
        results.append(producer(under, "submit", *where, "--job-key", key, *WAIT))

    both = [threading.Thread(target=submit_it) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    assert [done.code for done in results] == [0, 0], [done.err for done in results]
    assert len({done.lines[0]["job"] for done in results}) == 1
    assert sorted(done.lines[0]["joined"] for done in results) == [False, True]
    assert all(done.lines[-1]["ok"] == IMAGES for done in results)
    assert len(begun()) == IMAGES
    late = producer(under, "submit", *where, "--job-key", key, *WAIT)
    assert late.lines[0]["joined"] and late.code == 0, "the key is good for ever"


def test_a_producer_that_dies_while_listing_is_taken_over_by_the_next(under, ledger, begun):
    key, where = f"cut-{secrets.token_hex(4)}", places(under)
    with Proxy(int(under.installation.settings.s3.endpoint_url.rpartition(":")[2])) as line:
        slow = placed(
            under.installation, {"MASKMILL_S3__ENDPOINT_URL": line.url(under.installation.settings.s3.endpoint_url)}
        )
        line.delay = 0.3
        process = subprocess.Popen(
            [str(commands.BIN / "producer"), "submit", *where, "--job-key", key],
            env=commands.environment(slow.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            name = redis_keys.job_key(under.installation.settings.redis.prefix, key)
            dead = commands.wait_for(lambda: listing(ledger, name), "the job to be listed", 60)
        finally:
            process.kill()
            process.wait()
    assert ledger.view(dead).status is JobStatus.LISTING
    # A minute without a sign of life.
    ledger.link.client.hset(redis_keys.job(under.installation.settings.redis.prefix, dead), "beat_at", time.time() - 61)

    done = producer(under, "submit", *where, "--job-key", key, *WAIT)

    assert done.code == 0, done.err
    assert done.lines[0]["job"] != dead and not done.lines[0]["joined"]
    assert ledger.view(dead).status is JobStatus.CANCELLED
    assert len(begun()) == IMAGES


def listing(ledger: Ledger, key: str) -> str | None:
    """The job that has the key, once it has a record."""
    job = ledger.link.client.get(key)
    return job if job and ledger.link.client.exists(redis_keys.job(ledger.link.prefix, job)) else None
