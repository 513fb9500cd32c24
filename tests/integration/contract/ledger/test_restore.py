"""A job put back into a Redis that had lost it: exactly the unfinished chunks are published again."""

from __future__ import annotations

import pytest

from support.jobs import image_states
from worker.contract import outcome_codec
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.chunks import ChunkLedger
from worker.contract.messages import ChunkMessage, JobOptions, JobPolicy, OutcomeKind

OPTIONS = JobOptions(source="s3://in/", dest="s3://out/")
SIZE = 4


def restored(ledger, outcomes: bytes, ending: JobStatus | None = None):
    counts = {kind: outcomes.count(number) for kind, number in outcome_codec.NUMBERS.items()}
    fields = {"epoch": 1, "total": len(outcomes), "bytes": 0, "chunk_images": SIZE, "created_at": 1.0}
    return ledger.restore("job", OPTIONS, JobPolicy(), fields=fields, counts=counts, outcomes=outcomes, ending=ending)


@pytest.mark.parametrize(
    ("outcomes", "unfinished", "returned"),
    [
        (bytes(10), {0, 1, 2}, 0),  # no outcome: all chunks in order
        (bytes([1] * 6 + [0] * 4), {1, 2}, 1),
        (bytes([0] * 4 + [1] * 4 + [0] * 9), {0, 2, 3, 4}, 1),
        (bytes([1, 1, 0, 1, 1, 1, 1, 1, 3, 1]), {0}, 1),
    ],
)
def test_only_unfinished_chunks_are_published_again(ledger, outcomes, unfinished, returned):
    view = restored(ledger, outcomes)

    (job,) = Backlog(ledger.connection).active()
    assert view.status is JobStatus.RUNNING
    assert (job.returned, job.waiting) == (returned, len(unfinished))
    assert set(Backlog(ledger.connection).take("job", 100, epoch=1)) == unfinished
    assert image_states(ledger, "job", len(outcomes)) == [outcome_codec.KINDS[number] for number in outcomes]


def test_workers_look_for_outputs_of_a_restored_job(ledger):
    """Redis may have had the last outcomes alone."""
    restored(ledger, bytes([1] * 6 + [0] * 4))
    message = ChunkMessage(job="job", epoch=1, chunk=2, start=8, keys=("a.png", "b.png"))

    assert ChunkLedger(ledger.connection).start(message, "worker-0@here").recheck


def test_a_job_with_all_outcomes_only_needs_its_lists(ledger):
    assert restored(ledger, bytes([1, 1, 3, 1, 1])).status is JobStatus.CLOSING
    assert Backlog(ledger.connection).take("job", 100, epoch=1) == []


def test_failed_images_are_found_again_for_a_retry(ledger):
    outcomes = bytearray([1] * 40)
    outcomes[5] = outcomes[6] = outcomes[39] = outcome_codec.NUMBERS[OutcomeKind.FAILED]
    restored(ledger, bytes(outcomes), JobStatus.FINISHED)

    view = ledger.reopen("job", failed=True, cancelled=False)

    assert (view.status, view.failed) == (JobStatus.RUNNING, 0)
    assert set(Backlog(ledger.connection).take("job", 100, epoch=view.epoch)) == {1, 9}
