"""Which chunks may start ahead: those that no worker has started, of a running job that does every image."""

from __future__ import annotations

import pytest

from support.jobs import outcome
from worker.contract import redis_keys
from worker.contract.ledger.chunks import Verdict
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy

OPTIONS = JobOptions(source="s3://in/", dest="s3://out/")
ALL = JobPolicy(skip_existing=False)
CHUNK = ChunkMessage(job="job", chunk=1, start=3, keys=("3.jpg", "4.jpg", "5.jpg"))


def seal(ledger, policy: JobPolicy = ALL) -> None:
    ledger.create("job", OPTIONS, policy)
    assert ledger.seal("job", total=9, chunk_images=3, size=100)


def test_the_options_of_a_chunk_that_no_worker_has_started(ledger, chunk_ledger):
    seal(ledger)

    assert chunk_ledger.options_if_unstarted(CHUNK) == OPTIONS


def test_a_chunk_that_was_started_has_none(ledger, chunk_ledger):
    seal(ledger)
    assert chunk_ledger.start(CHUNK, "worker-0@elsewhere").verdict is Verdict.RUN
    chunk_ledger.record_death(CHUNK, "worker-0@elsewhere", "killed by signal 11 (SIGSEGV)")

    assert chunk_ledger.options_if_unstarted(CHUNK) is None


def test_a_chunk_that_is_done_has_none(ledger, chunk_ledger):
    """A second copy of its message. Its neighbours, which share bytes with it, still have some."""
    seal(ledger)
    lease = chunk_ledger.start(CHUNK, "worker-0@elsewhere")
    lease.record([outcome(index) for index in (3, 4, 5)])
    before, after = (
        CHUNK.model_copy(
            update={"chunk": chunk, "start": 3 * chunk, "keys": tuple(f"{3 * chunk + n}.jpg" for n in range(3))}
        )
        for chunk in (0, 2)
    )

    assert chunk_ledger.options_if_unstarted(CHUNK) is None
    assert [chunk_ledger.options_if_unstarted(neighbour) for neighbour in (before, after)] == [OPTIONS] * 2


@pytest.mark.parametrize("change", ["pause", "cancel", "stale", "unknown", "later"])
def test_a_chunk_of_a_job_that_does_not_run_has_none(ledger, change, chunk_ledger):
    seal(ledger)
    message = CHUNK
    if change == "stale":
        message = CHUNK.model_copy(update={"epoch": 1})
    elif change == "unknown":
        message = CHUNK.model_copy(update={"job": "other"})
    elif change == "later":  # options of a later version: `start` reports them
        ledger.connection.client.hset(
            redis_keys.job(ledger.connection.prefix, "job"), "options", '{"from": "the future"}'
        )
    else:
        getattr(ledger, change)("job")

    assert chunk_ledger.options_if_unstarted(message) is None


def test_a_chunk_with_images_that_may_be_up_to_date_has_none(ledger, chunk_ledger):
    seal(ledger, JobPolicy(skip_existing=True))

    assert chunk_ledger.options_if_unstarted(CHUNK) is None


@pytest.mark.parametrize(
    "numbers", [{"chunk": 2**31}, {"start": 0}, {"keys": ("3.jpg",)}, {"chunk": 3, "start": 9}], ids=str
)
def test_numbers_that_do_not_follow_from_the_job_have_none(ledger, chunk_ledger, numbers):
    seal(ledger)

    assert chunk_ledger.options_if_unstarted(CHUNK.model_copy(update=numbers)) is None
