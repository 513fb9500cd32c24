"""Redis memory of a job of a million images: at most 2 MiB plus one byte per image, in every state."""

from __future__ import annotations

from support.jobs import lease
from worker.contract import redis_keys
from worker.contract.job import JobStatus
from worker.contract.ledger.chunks import MAX_FAILURES
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind
from worker.contract.queue.dispatcher import window
from worker.steward.feeder import MAX_PENDING_OUTCOMES

TOTAL, CHUNK_IMAGES, WORKERS = 1_000_000, 8, 200
LIMIT = 2 * 2**20 + TOTAL
KEY = "catalogue/2026/autumn/shoes/IMG_{:06d}-front-view.jpg"


def used(ledger: Ledger, job: str) -> int:
    """Return the bytes of all keys of a job."""
    client = ledger.connection.client
    sizes = [client.memory_usage(key, samples=0) or 0 for key in redis_keys.job_keys(ledger.connection.prefix, job)]
    return sum(sizes)


def outcomes(first: int, count: int, kind: OutcomeKind) -> list[Outcome]:
    bad = kind is not OutcomeKind.OK
    return [
        Outcome(
            index=index,
            key=KEY.format(index),
            kind=kind,
            code="undecodable" if bad else "",
            message="image file is truncated (17 bytes not processed)" if bad else "",
            outputs=() if bad else (KEY.format(index).replace("jpg", "png"),),
            seconds=1.234567,
        )
        for index in range(first, first + count)
    ]


def message(chunk: int, epoch: int = 0) -> ChunkMessage:
    first = chunk * CHUNK_IMAGES
    keys = tuple(KEY.format(index) for index in range(first, first + CHUNK_IMAGES))
    return ChunkMessage(job="job", epoch=epoch, chunk=chunk, start=first, keys=keys)


def test_a_million_images_stay_within_the_limit(world):
    ledger, backlog, connection = world.ledger, world.backlog, world.ledger.connection
    ledger.create("job", JobOptions(source="s3://in/", dest="s3://out/"))
    ledger.seal("job", total=TOTAL, chunk_images=CHUNK_IMAGES, size=1)
    seen = {"sealed": used(ledger, "job")}
    chunks = backlog.take("job", window(WORKERS) + WORKERS, epoch=0)
    for chunk in chunks:
        worker = f"worker-{chunk}@a-node-with-a-long-name"
        for _ in range(3):  # makes every chunk a suspect
            world.chunks.start(message(chunk), worker)
        lease(ledger, message(chunk), worker).begin(chunk * CHUNK_IMAGES)
        world.chunks.record_death(message(chunk), worker, "killed by signal 11 (SIGSEGV)")
        world.chunks.start(message(chunk), worker)
    seen["window in flight"] = used(ledger, "job")
    done = 0  # until the log and the list of failures are full
    for kind, upto in ((OutcomeKind.FAILED, MAX_FAILURES + 500), (OutcomeKind.OK, MAX_PENDING_OUTCOMES)):
        while done < upto:
            lease(ledger, message(done // CHUNK_IMAGES)).record(outcomes(done, CHUNK_IMAGES, kind))
            done += CHUNK_IMAGES
    last = TOTAL // CHUNK_IMAGES - 1
    lease(ledger, message(last)).record(outcomes(last * CHUNK_IMAGES, 1, OutcomeKind.OK))
    seen["log full"] = used(ledger, "job")
    backlog.delete_pending("job", backlog.pending_outcomes("job", 2 * MAX_PENDING_OUTCOMES))
    ledger.cancel("job")
    assert backlog.settle("job", 0) and backlog.close("job", 0, 600)
    seen["ended"] = used(ledger, "job")
    # Run again: every chunk has images to run, and all of them wait.
    connection.run("reopen", "job", 1)
    every_chunk = b"\xff" * (TOTAL // CHUNK_IMAGES // 8)
    connection.client.set(redis_keys.job_keys(connection.prefix, "job").returned, every_chunk)
    seen["run again"] = used(ledger, "job")

    assert {moment: size for moment, size in seen.items() if size > LIMIT} == {}
    assert ledger.view("job").status is JobStatus.REOPENING
