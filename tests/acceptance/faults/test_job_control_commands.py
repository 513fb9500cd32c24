"""The commands that control a running job, as a user types them."""

from __future__ import annotations

import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from support import commands
from support.fault_injection import Faults
from support.fault_timing import FAST, IN_FLIGHT
from support.installation import make_bucket, new_installation
from support.job_account import broker_empty, progress
from support.proxy import Proxy
from support.shared_workers import SharedWorkers
from support.small_jobs import picture
from worker.contract import output_names, redis_keys
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.manifest import job_folder
from worker.contract.storage.s3 import ObjectStore
from worker.standalone.services import Standalone

IMAGES, CHUNK = 50, 5
FEW = 20
"""Images of a job that runs to its end while no command has to reach it: four chunks."""
IMAGE_SECONDS = 0.4
WAIT = ("--wait", "--timeout", "90", "--json")
CANCELLED, THRESHOLD, SOME_FAILED = 5, 4, 3


@pytest.fixture(scope="module")
def workers(
    standalone: Standalone, cache: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedWorkers]:
    """One worker process; `in/` holds `IMAGES` pictures, `few/` has `FEW`."""
    folder = tmp_path_factory.mktemp("workers")
    installation = new_installation(standalone).with_settings(
        FAST | cache | {"MASKMILL_JOBS__CHUNK_IMAGES": str(CHUNK)}
    )
    make_bucket(installation)
    with SharedWorkers.start(
        installation, Faults(folder, image_seconds=IMAGE_SECONDS), folder / "worker.log"
    ) as workers:
        workers.upload(IMAGES)
        workers.upload(FEW, "few")
        yield workers


@pytest.fixture
def ledger(workers: SharedWorkers) -> Iterator[Ledger]:
    with Ledger(workers.installation.settings.redis) as ledger:
        yield ledger


@pytest.fixture
def store(workers: SharedWorkers) -> Iterator[ObjectStore]:
    with ObjectStore(workers.installation.settings.s3) as store:
        yield store


@pytest.fixture
def executed(workers: SharedWorkers) -> Callable[[], list[str]]:
    """Return the key of each execution since the start of the test."""
    before = workers.faults.executions()
    return lambda: sorted((workers.faults.executions() - before).elements())


def producer(workers: SharedWorkers, *arguments: str) -> commands.Result:
    return commands.run("producer", *arguments, settings=workers.installation.environment)


def submit(workers: SharedWorkers, *options: str, folder: str = "in", dest: str = "") -> str:
    """Submit a job without waiting for it; return its id."""
    done = producer(workers, "submit", *source_and_dest(workers, folder, dest), "--json", *options)
    assert done.code == 0, done.err
    return done.lines[0]["job"]


def source_and_dest(workers: SharedWorkers, folder: str = "in", dest: str = "") -> tuple[str, str]:
    """Return the URLs of a source and a destination, by default a new one."""
    bucket = workers.installation.bucket
    return f"s3://{bucket}/{folder}/", f"s3://{bucket}/{dest or f'out-{secrets.token_hex(4)}'}/"


def outputs(store: ObjectStore, ledger: Ledger, job: str) -> set[str]:
    """Return the keys of all outputs of a job."""
    dest = ledger.view(job).options.dest
    return {item.key for item in store.list(dest) if not item.key.startswith(output_names.JOB_PREFIX)}


def job_files(store: ObjectStore, ledger: Ledger, job: str) -> set[str]:
    """Return the names of the files in the job's folder."""
    folder = job_folder(ledger.view(job).options.dest, job)
    return {item.key.partition("/")[0] for item in store.list(folder)}


def test_cancel_stops_within_an_image_and_nothing_is_written_afterwards(workers, ledger, store, executed):
    job = submit(workers)
    progress(ledger, job, 3)

    done = producer(workers, "cancel", job, "--reason", "wrong prefix", *WAIT)
    written, started = outputs(store, ledger, job), executed()
    time.sleep(5 * IMAGE_SECONDS)

    assert done.code == CANCELLED, done.err
    view = ledger.view(job)
    assert (view.status, view.reason) == (JobStatus.CANCELLED, "wrong prefix")
    assert view.done == IMAGES and 3 <= view.ok < IMAGES - CHUNK and view.cancelled == IMAGES - view.ok
    assert len(written) == view.ok
    assert (outputs(store, ledger, job), executed()) == (written, started), "images ran after the end"
    assert {"failed.jsonl", "manifest.json", "succeeded-00000.jsonl.gz", "cancelled-00000.jsonl.gz"} <= job_files(
        store, ledger, job
    )
    assert "_SUCCESS" not in job_files(store, ledger, job)
    assert broker_empty(ledger)
    assert producer(workers, "cancel", job).code == 0, "a second cancel succeeds"
    assert producer(workers, "pause", job).code == 1


def test_retry_runs_the_cancelled_images_only(workers, ledger, store, executed):
    job = submit(workers)
    progress(ledger, job, 3)
    assert producer(workers, "cancel", job, *WAIT).code == CANCELLED
    first = outputs(store, ledger, job)

    done = producer(workers, "retry", job, "--cancelled", *WAIT)

    assert done.code == 0, done.err
    assert len(executed()) <= IMAGES + IN_FLIGHT, "only images that were started ahead may run twice"
    second = outputs(store, ledger, job)
    assert len(second) == IMAGES and first <= second
    assert "_SUCCESS" in job_files(store, ledger, job)
    assert producer(workers, "retry", job, "--cancelled").code == 0, "nothing is left to do"


def test_pause_stops_within_an_image_and_resume_continues(workers, ledger, executed):
    job = submit(workers)
    progress(ledger, job, 3)

    assert producer(workers, "pause", job).code == 0
    time.sleep(2 * IMAGE_SECONDS + 0.5)
    paused = ledger.view(job)
    time.sleep(1.5)
    assert ledger.view(job) == paused and paused.status is JobStatus.PAUSED
    assert paused.done < IMAGES - CHUNK
    assert producer(workers, "retry", job).code == 1, "only an ended job can be retried"
    keys = redis_keys.job_keys(workers.installation.settings.redis.prefix, job)
    assert set(ledger.connection.client.hvals(keys.attempts)) <= {"0", "1"}

    done = producer(workers, "resume", job, *WAIT)

    assert done.code == 0, done.err
    assert workers.settle(job).view.ok == IMAGES
    assert len(executed()) <= IMAGES + IN_FLIGHT, "only images that were started ahead may run twice"


@pytest.mark.long
def test_a_paused_job_can_be_cancelled(workers, ledger):
    job = submit(workers)
    progress(ledger, job, 1)
    producer(workers, "pause", job)

    done = producer(workers, "cancel", job, *WAIT)

    assert done.code == CANCELLED
    assert ledger.view(job).done == IMAGES


@pytest.fixture
def broken(workers: SharedWorkers, store: ObjectStore) -> tuple[str, list[S3Url]]:
    """A folder whose second chunk contains four files that are not pictures, and the URLs of these four."""
    folder = f"broken-{secrets.token_hex(4)}"
    images = [S3Url(workers.installation.bucket, f"{folder}/{index}.png") for index in range(2 * CHUNK)]
    bad = images[CHUNK : CHUNK + 4]
    for image in images:
        store.put(image, b"no picture" if image in bad else picture(), content_type="image/png")
    return folder, bad


def test_retry_runs_the_failed_images_only(workers, ledger, store, broken, executed):
    folder, bad = broken
    first = producer(workers, "submit", *source_and_dest(workers, folder), *WAIT)
    job = first.lines[0]["job"]
    assert first.code == SOME_FAILED, first.err
    assert ledger.view(job).codes == {"undecodable": 4}
    for image in bad:
        store.put(image, picture(), content_type="image/png")

    done = producer(workers, "retry", job, "--failed", *WAIT)

    assert done.code == 0, done.err
    view = workers.settle(job).view
    assert (view.ok, view.failed, view.epoch, view.codes) == (10, 0, 1, {})
    assert len(executed()) == 10 + len(bad)
    failed, _ = store.get(job_folder(view.options.dest, job) / "failed.jsonl", max_bytes=1000)
    assert failed == b"" and "_SUCCESS" in job_files(store, ledger, job)


@pytest.mark.parametrize(
    ("threshold", "code"),
    [
        ("20%", THRESHOLD),
        ("4", SOME_FAILED),
        pytest.param("2", THRESHOLD, marks=pytest.mark.long),
        pytest.param("50%", SOME_FAILED, marks=pytest.mark.long),
    ],
)
def test_the_error_threshold_stops_a_job(workers, ledger, broken, threshold, code):
    done = producer(workers, "submit", *source_and_dest(workers, broken[0]), "--error-threshold", threshold, *WAIT)

    view = ledger.view(done.lines[0]["job"])
    assert done.code == code, done.err
    assert view.status is (JobStatus.STOPPED if code == THRESHOLD else JobStatus.FINISHED)
    assert view.done == 10 and ("were allowed" in view.reason) == (code == THRESHOLD)
    with ObjectStore(workers.installation.settings.s3) as store:
        assert "manifest.json" in job_files(store, ledger, view.job)
    assert broker_empty(ledger)


def test_the_job_with_the_higher_priority_ends_first(workers, ledger):
    workers.upload(IMAGES + 15, "many")
    jobs = {}
    for priority in ("low", "high"):
        jobs[priority] = submit(workers, "--priority", priority, folder="many")
        ledger.pause(jobs[priority])  # until both exist: a command may take as long to start as a job takes to run
    for job in jobs.values():
        ledger.resume(job)

    for job in jobs.values():
        assert workers.settle(job).view.ok == IMAGES + 15

    low, high = (ledger.view(jobs[priority]) for priority in ("low", "high"))
    assert low.created_at < high.created_at and high.completed_at < low.completed_at


def test_a_second_run_does_only_what_changed(workers, ledger, store, executed):
    folder, dest = f"again-{secrets.token_hex(4)}", f"again-out-{secrets.token_hex(4)}"
    sources = [S3Url(workers.installation.bucket, f"{folder}/{index}.png") for index in range(6)]
    for image in sources:
        store.put(image, picture(), content_type="image/png")

    def run(*options: str) -> tuple[dict, int]:
        before = len(executed())
        done = producer(workers, "submit", *source_and_dest(workers, folder, dest), *options, *WAIT)
        assert done.code == 0, done.err
        return done.lines[-1], len(executed()) - before

    first, count = run()
    assert (first["ok"], first["skipped"], count) == (6, 0, 6)

    second, count = run()
    assert (second["ok"], second["skipped"], count) == (0, 6, 0)

    store.put(sources[2], picture(80), content_type="image/png")  # another picture
    store.delete(S3Url(workers.installation.bucket, f"{dest}/4.png"))  # a lost output
    third, count = run()
    assert (third["ok"], third["skipped"], count) == (2, 4, 2)

    fourth, count = run("--force")
    assert (fourth["ok"], fourth["skipped"], count) == (6, 0, 6)


def test_two_jobs_with_one_destination_run_one_after_the_other(workers, ledger):
    dest = f"both-{secrets.token_hex(4)}"
    first = submit(workers, folder="few", dest=dest)
    ledger.pause(first)  # a command may take as long to start as a job takes to run
    done = producer(workers, "submit", *source_and_dest(workers, "few", dest), "--force", "--json")
    second = done.lines[0]["job"]

    assert done.lines[0]["waits_for"] == first
    assert ledger.view(second).started_at is None
    ledger.resume(first)
    for job in (first, second):
        commands.wait_for(lambda job=job: ledger.view(job).ended, f"job {job} to end", 90)
    one, two = ledger.view(first), ledger.view(second)
    assert one.ok == two.ok == FEW
    assert one.completed_at <= two.started_at


def test_two_producers_with_one_key_make_one_job(workers, ledger, executed):
    key, urls = f"nightly-{secrets.token_hex(4)}", source_and_dest(workers, "few")
    results: list[commands.Result] = []

    def submit_once() -> None:
        results.append(producer(workers, "submit", *urls, "--job-key", key, *WAIT))

    both = [threading.Thread(target=submit_once) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    assert [done.code for done in results] == [0, 0], [done.err for done in results]
    assert len({done.lines[0]["job"] for done in results}) == 1
    assert sorted(done.lines[0]["joined"] for done in results) == [False, True]
    assert all(done.lines[-1]["ok"] == FEW for done in results)
    assert len(executed()) == FEW
    late = producer(workers, "submit", *urls, "--job-key", key, *WAIT)
    assert late.lines[0]["joined"] and late.code == 0, "the key stays valid"


def test_the_next_producer_replaces_one_that_died_while_listing(workers, ledger, executed):
    key, urls = f"cut-{secrets.token_hex(4)}", source_and_dest(workers, "few")
    with Proxy(int(workers.installation.settings.s3.endpoint_url.rpartition(":")[2])) as proxy:
        slow = workers.installation.with_settings(
            {"MASKMILL_S3__ENDPOINT_URL": proxy.url(workers.installation.settings.s3.endpoint_url)}
        )
        proxy.delay = 0.3
        process = subprocess.Popen(
            [str(commands.BIN / "producer"), "submit", *urls, "--job-key", key],
            env=commands.environment(slow.environment),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            name = redis_keys.job_key(workers.installation.settings.redis.prefix, key)
            dead = commands.wait_for(lambda: job_of(ledger, name), "the job to be listed", 60)
        finally:
            process.kill()
            process.wait()
    assert ledger.view(dead).status is JobStatus.LISTING
    # The last heartbeat is 61 s old.
    ledger.connection.client.hset(
        redis_keys.job(workers.installation.settings.redis.prefix, dead), "beat_at", time.time() - 61
    )

    done = producer(workers, "submit", *urls, "--job-key", key, *WAIT)

    assert done.code == 0, done.err
    assert done.lines[0]["job"] != dead and not done.lines[0]["joined"]
    assert ledger.view(dead).status is JobStatus.CANCELLED
    assert len(executed()) == FEW


def job_of(ledger: Ledger, key: str) -> str | None:
    """Return the job with this key in Redis, once it has a record."""
    job = ledger.connection.client.get(key)
    return job if job and ledger.connection.client.exists(redis_keys.job(ledger.connection.prefix, job)) else None
