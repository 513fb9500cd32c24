"""What a job of a million images costs in Redis: at most 2 MiB and a byte per image, at every moment of its life."""

from __future__ import annotations

from worker.contract import redis_keys
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import MAX_FAILURES, Ledger
from worker.contract.messages import ChunkMessage, JobOptions, Outcome, OutcomeKind
from worker.contract.queue.dispatcher import window
from worker.steward.feeder import MAX_LOG

TOTAL, CHUNK_IMAGES, WORKERS = 1_000_000, 8, 200
LIMIT = 2 * 2**20 + TOTAL
KEY = "catalogue/2026/autumn/shoes/IMG_{:06d}-front-view.jpg"


def used(ledger: Ledger, job: str) -> int:
    """Bytes of all keys of a job."""
    client = ledger.link.client
    sizes = [client.memory_usage(key, samples=0) or 0 for key in redis_keys.job_keys(ledger.link.prefix, job)]
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
    ledger, backlog, link = world.ledger, world.backlog, world.ledger.link
    ledger.create("job", JobOptions(source="s3://in/", dest="s3://out/"))
    ledger.seal("job", total=TOTAL, chunk_images=CHUNK_IMAGES, size=1)
    seen = {"sealed": used(ledger, "job")}
    chunks = backlog.take("job", window(WORKERS) + WORKERS, epoch=0)
    for chunk in chunks:
        for _ in range(3):  # every one of them is suspected
            ledger.start(message(chunk), f"worker-{chunk}@a-node-with-a-long-name")
        ledger.begin(message(chunk), f"worker-{chunk}@a-node-with-a-long-name", chunk * CHUNK_IMAGES)
        ledger.died(message(chunk), f"worker-{chunk}@a-node-with-a-long-name", "killed by signal 11 (SIGSEGV)")
        ledger.start(message(chunk), f"worker-{chunk}@a-node-with-a-long-name")
    seen["window in work"] = used(ledger, "job")
    done = 0  # what the log and the list of failures hold at most
    for kind, upto in ((OutcomeKind.FAILED, MAX_FAILURES + 500), (OutcomeKind.OK, MAX_LOG)):
        while done < upto:
            ledger.record(message(done // CHUNK_IMAGES), outcomes(done, CHUNK_IMAGES, kind))
            done += CHUNK_IMAGES
    last = TOTAL // CHUNK_IMAGES - 1
    ledger.record(message(last), outcomes(last * CHUNK_IMAGES, 1, OutcomeKind.OK))
    seen["log full"] = used(ledger, "job")
    backlog.logged("job", backlog.log("job", 2 * MAX_LOG))
    ledger.cancel("job")
    assert backlog.settle("job", 0) and backlog.close("job", 0, 600)
    seen["ended"] = used(ledger, "job")
    # Run again: every chunk has something to do, and all of them wait.
    link.run("reopen", "job", 1)
    ledger._add_returned(redis_keys.job_keys(link.prefix, "job").returned, list(range(TOTAL // CHUNK_IMAGES)))
    seen["run again"] = used(ledger, "job")

    assert {moment: size for moment, size in seen.items() if size > LIMIT} == {}
    assert ledger.view("job").status is JobStatus.REOPENING
