"""A real steward outlives a full disk, a lack of file descriptors, slow clients and objects that unpack to a lot."""

from __future__ import annotations

import gzip
import json
import os
import urllib.request
import zlib

import pytest

from support.commands import wait_for
from support.fault_timing import FAST
from support.jobs import run
from support.loopback import connect_in_turn
from support.scheduler_harness import SchedulerHarness
from support.steward_process import StewardProcess, steward
from worker.contract import redis_keys
from worker.contract.job import MAX_IMAGES, JobStatus, JobView
from worker.contract.ledger.records import MAX_ACTIVE
from worker.contract.storage import manifest, outcome_log
from worker.standalone import ports

MIB = 1024 * 1024
MOST_MIB = 200


def ends(world: SchedulerHarness, process: StewardProcess, job: str, seconds: float = 60) -> JobView:
    def ended() -> JobView | None:
        assert process.running, process.log[-3000:]
        view = world.ledger.view(job)
        return view if view.ended else None

    found = wait_for(ended, f"job {job} to end", seconds)
    assert isinstance(found, JobView)
    return found


def test_a_job_ends_though_the_steward_can_write_no_file(world, installation):
    """As on a full disk: the lists go to S3 without one."""
    with steward(installation.environment | FAST, file_bytes=0) as process:
        view = world.submit(8)
        run(world.ledger, view, range(view.chunks), bad=[1, 7])

        ended = ends(world, process, "job")

        assert (ended.status, ended.failed, ended.reason) == (JobStatus.FINISHED, 2, "")
        lists = manifest.job_folder(world.out, "job")
        assert len(world.store.get(lists / outcome_log.FAILED, max_bytes=MIB)[0].splitlines()) == 2
        assert "event=role_failed" not in process.log


def test_slow_clients_take_no_descriptors_from_the_roles(world, installation):
    port = ports.choose({"metrics": (0,)})["metrics"]
    settings = installation.environment | FAST | {"MASKMILL_METRICS__PORT": str(port)}
    with steward(settings, files=64) as process:
        wait_for(lambda: "event=http_listening" in process.log, "the port", 60)
        clients = connect_in_turn(port, 100)
        try:
            for client in clients[-5:]:
                client.sendall(b"GET /metrics HT")
            view = world.submit(8)
            run(world.ledger, view, range(view.chunks))

            assert ends(world, process, "job").status is JobStatus.FINISHED
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=30) as answer:
                assert answer.status == 200
        finally:
            for client in clients:
                client.close()
        assert "Too many open files" not in process.log


def bomb(line: bytes, size: int) -> bytes:
    """Return gzip of about `size` bytes of one line repeated."""
    packer = zlib.compressobj(1, wbits=31)
    block = line * (MIB // len(line))
    return b"".join([*(packer.compress(block) for _ in range(size // len(block))), packer.flush()])


LINE = b'{"index":0,"key":"0.jpg","kind":"ok"}\n'
LONG = b'{"index":0,"key":"' + b"k" * 6000 + b'","kind":"ok"}\n'
HOSTILE = {
    "empty lines": lambda: bomb(b"\n", 400 * MIB),
    "lines without an end": lambda: bomb(b"x" * 1024, 400 * MIB),
    "good lines without end": lambda: bomb(LINE, 300 * MIB),
    "good long lines": lambda: gzip.compress(LONG * 9_999),
    "deep lines": lambda: gzip.compress((b"[" * 100_000 + b"\n") * 200),
    "bytes that do not compress": lambda: os.urandom(40 * MIB),
}
"""Made by the test: to import this module must cost nothing."""


def close_largest(world: SchedulerHarness) -> None:
    """Let a job of as many images as any may have wait for its lists."""
    view = world.submit(6, job="largest", dest="largest")
    keys = redis_keys.job_keys(world.ledger.connection.prefix, view.job)
    client = world.ledger.connection.client
    client.set(keys.images, b"\x11" * (MAX_IMAGES // 2))
    chunks = -(-MAX_IMAGES // 256)
    counts = {"total": MAX_IMAGES, "ok": MAX_IMAGES, "chunks": chunks, "chunk_images": 256, "cursor": chunks}
    client.hset(keys.record, mapping={"status": "closing", "ending": "finished", **counts})


@pytest.mark.timeout(240)
def test_memory_stays_below_its_bound_whatever_lies_in_the_folder_of_a_job(world, installation):
    """Also of the largest job."""
    with steward(installation.environment | FAST, file_bytes=0) as process:
        for number, make in enumerate(HOSTILE.values()):
            body = make()
            for place in ("manifest", "results"):
                job = f"{place}-{number}"
                view = world.submit(6, job=job, dest=job)
                if place == "manifest":
                    world.store.put(world.first_part(job, job), body, content_type="x")
                else:
                    name = f"0000-{1:015d}-{0:06d}-{1:06d}.jsonl.gz"
                    url = outcome_log.results_folder(view.options.dest, job) / name
                    world.store.put(url, body, content_type="x")
                    run(world.ledger, view, range(view.chunks))
        for number in range(len(HOSTILE)):
            assert ends(world, process, f"results-{number}").status is JobStatus.FINISHED
            job = f"manifest-{number}"
            if not world.ledger.view(job).ended:
                world.ledger.cancel(job)
            ends(world, process, job)
        close_largest(world)
        assert "its lists are incomplete" in ends(world, process, "largest").reason  # it has no manifest
        usual = world.submit(6, job="usual", dest="usual")
        run(world.ledger, usual, range(usual.chunks))
        assert ends(world, process, "usual").status is JobStatus.FINISHED
        peak = process.peak_mib

        assert peak < MOST_MIB, f"{peak:.0f} MiB"
        assert "internal_error" not in process.log
    print(f"peak {peak:.0f} MiB")  # noqa: T201 -- shown with `-s`


def test_memory_stays_below_its_bound_however_long_the_queue_is(world, installation):
    """A lost chunk is searched for among a million messages of another program."""
    client, queue = world.ledger.connection.client, redis_keys.queue(world.ledger.connection.prefix, redis_keys.QUEUE)
    foreign = json.dumps({"body": "x" * 60, "headers": {"id": "another.0.0", "task": "x"}})
    for _ in range(20):  # by a script: sending each of them would take as long as the rest of the test
        client.eval("for _ = 1, 50000 do redis.call('LPUSH', KEYS[1], ARGV[1]) end", 1, queue, foreign)
    view = world.submit(6)
    world.backlog.take(view.job, 1, epoch=0)  # its message is never sent

    with steward(installation.environment | FAST) as process:
        wait_for(lambda: "event=chunks_republished" in process.log, "the lost chunk", 120)
        peak = process.peak_mib

    assert peak < MOST_MIB, f"{peak:.0f} MiB"
    assert client.llen(queue) == 1_000_001
    print(f"peak {peak:.0f} MiB")  # noqa: T201 -- shown with `-s`


WIDE = "\N{GRINNING FACE}"
"""One such character makes Python store four bytes for each character of a text."""

LONG_OPTIONS = {
    "background": f"s3://b/{'k' * 1000}{WIDE}",
    "background_etag": "e" * 1000 + WIDE,
    "name": f"{{stem}}{'n' * 480}{WIDE}.{{ext}}",
}
LONG_FIELDS = {"reason": WIDE * 2000} | {f"code:{'c' * 80}{number}": 1 for number in range(60)}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("length", ["short", "long"])
def test_memory_stays_below_its_bound_however_many_jobs_there_are(world, installation, length):
    """More than are looked at once, each with the longest texts that can be read; a job beside them ends."""
    connection = world.ledger.connection
    long = length == "long"
    key = "d" * 900 + WIDE if long else "d"
    count, pipeline = MAX_ACTIVE * 3 // 2, connection.client.pipeline(transaction=False)
    for number in range(count):
        job = f"job-{number}"
        options = {"source": f"s3://b/{key}/", "dest": f"s3://b/{key}{number}/"} | (LONG_OPTIONS if long else {})
        record = {"job": job, "status": "paused", "options": json.dumps(options), "created_at": 1, "epoch": 0}
        record |= {"total": 6, "chunks": 2, "chunk_images": 3, "cursor": 0} | (LONG_FIELDS if long else {})
        pipeline.hset(redis_keys.job(connection.prefix, job), mapping=record)
        pipeline.sadd(redis_keys.active(connection.prefix), job)
        if number % 500 == 0:
            pipeline.execute()
    pipeline.execute()

    with steward(installation.environment | FAST) as process:
        view = world.submit(8, job="beside", dest="beside")
        run(world.ledger, view, range(view.chunks))
        assert ends(world, process, "beside", 120).status is JobStatus.FINISHED
        peak = process.peak_mib

        assert peak < MOST_MIB, f"{peak:.0f} MiB"
    assert connection.client.scard(redis_keys.active(connection.prefix)) == count
    print(f"peak {peak:.0f} MiB")  # noqa: T201 -- shown with `-s`
