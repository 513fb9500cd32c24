"""Chunks of odd length, whose images share a byte with those of their neighbours: four bits per image."""

from __future__ import annotations

import itertools

import pytest

from support.jobs import lease
from worker.contract.job import JobStatus
from worker.contract.ledger.chunks import Verdict
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind

OPTIONS = JobOptions(source="s3://in/", dest="s3://out/")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("size", "total"), [(1, 3), (2, 5), (3, 8), (5, 14), (4, 4)])
def test_a_chunk_is_complete_with_its_last_image_and_no_sooner(ledger, chunk_ledger, size, total, first):
    ledger.create("job", OPTIONS)
    assert ledger.seal("job", total=total, chunk_images=size, size=1)
    keys = [f"{index}.jpg" for index in range(total)]
    chunks = [
        ChunkMessage(job="job", chunk=number, start=start, keys=tuple(keys[start : start + size]))
        for number, start in enumerate(range(0, total, size))
    ]
    # Every other chunk first, so that the other halves of shared bytes are set in one case and empty in the other.
    for chunk in itertools.chain(chunks[first::2], chunks[1 - first :: 2]):
        assert chunk_ledger.start(chunk, "worker").verdict is Verdict.RUN
        for index in reversed(range(chunk.start, chunk.start + len(chunk.keys))):
            assert chunk_ledger.start(chunk, "worker").verdict is Verdict.RUN, (chunk.start, index)
            kind = (OutcomeKind.OK, OutcomeKind.CANCELLED, OutcomeKind.FAILED)[index % 3]
            found = Outcome(index=index, key=keys[index], kind=kind, code="c" if index % 3 else "")
            lease(ledger, chunk, "worker").record([found])
        verdict = chunk_ledger.start(chunk, "worker").verdict
        assert verdict in (Verdict.DONE, Verdict.CANCELLED, Verdict.STALE), verdict
        assert not lease(ledger, chunk, "worker").release(model="m", core_seconds=1, blameless=True)

    assert ledger.view("job").status is JobStatus.CLOSING


@pytest.mark.parametrize(
    "numbers",
    [
        {"chunk": 2, "start": 6},
        {"chunk": 2**31, "start": 2**31 * 3},
        {"chunk": 0, "start": 3},
        {"chunk": 1, "start": 0},
        {"chunk": 1, "start": 4},
        {"keys": ("a",)},
        {"keys": ("a", "b", "c")},
        {"epoch": 7},
    ],
    ids=str,
)
def test_numbers_that_do_not_follow_from_the_job_are_stale(ledger, chunk_ledger, numbers):
    """A message anyone may have put into the queue: nothing is written, whatever its numbers are."""
    ledger.create("crooked", JobOptions(source="s3://in/", dest="s3://out/"))
    assert ledger.seal("crooked", total=5, chunk_images=3, size=1)
    client = ledger.connection.client
    right = ChunkMessage(job="crooked", chunk=1, start=3, keys=("a", "b"))

    def stored() -> dict[str, object]:
        kinds = {key: client.type(key) for key in client.scan_iter("*crooked*")}
        return {key: client.hgetall(key) if kind == "hash" else client.dump(key) for key, kind in kinds.items()}

    before = stored()

    lease = chunk_ledger.start(right.model_copy(update=numbers), "worker-0@here")

    assert lease.verdict is Verdict.STALE
    assert stored() == before
    assert chunk_ledger.start(right, "worker-0@here").verdict is Verdict.RUN
