"""Measure the producer on a job of any size, without a picture: the producer's side of `worker bench submit`.

Only the listing is synthetic. Everything else is what `producer submit`, `status`, `cancel`, `retry` and `recover` do:
the same code, a real Redis, manifest parts in a real S3. It runs as a separate process, so that its memory is that of a
producer.

    python -m producer.bench.submit ACTION '{"keys": 1000000, "dest": "s3://...", ...}'

prints one JSON object and waits for the end of its input: meanwhile the parent reads the peak memory of this process.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

from producer.recover import recover
from producer.recover_all import Finding, recover_all
from producer.submit import Submitter
from worker.contract import settings
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobOptions, JobPolicy, OutcomeKind
from worker.contract.outputs import OutputOptions
from worker.contract.queue.celery_app import make_celery
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest, outcome_log
from worker.contract.storage.s3 import ObjectInfo, ObjectStore

SOURCE = S3Url("bucket-that-is-not-there", "photos/")
"""S3 gets no request for it."""

FOLDER_IMAGES = 1_000

_LISTING_SAMPLE = 1_000_000
"""Most keys listed to measure the cost of the listing alone; it is extrapolated from them."""

_CHUNK_IMAGES = 50
_LOGGED_AT_ONCE = 500
"""Outcomes in a part of the outcome log: 30 s of a node with 17 images/s."""

_CURVE_SECONDS = 0.25
_STATUS_CALLS = 1_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


class SyntheticListing(ObjectStore):
    """The real store, except that the listing of `SOURCE` is generated."""

    keys = 0

    def count_requests(self) -> Counter[str]:
        """Return a counter of the requests sent to S3 from now on, by operation; attempts after a failure included."""
        found: Counter[str] = Counter()
        lock = threading.Lock()

        def count(event_name: str, **_: Any) -> None:
            with lock:
                found[event_name.rpartition(".")[2]] += 1

        self._client.meta.events.register("before-send.s3", count)
        return found

    def list(self, folder: S3Url, **options: Any) -> Iterator[ObjectInfo]:
        """Yield keys in the order of S3, with sizes and ETags that compress as badly as real ones."""
        return synthetic_objects(self.keys) if folder == SOURCE else super().list(folder, **options)

    def check(self, folder: S3Url) -> None:
        """Check a folder, except `SOURCE`."""
        if folder != SOURCE:
            super().check(folder)


def key_of(index: int) -> str:
    """Return a key such as `catalogue/000123/IMG_00123456.jpg`."""
    return f"catalogue/{index // FOLDER_IMAGES:06d}/IMG_{index:08d}.jpg"


def synthetic_objects(keys: int) -> Iterator[ObjectInfo]:
    """Yield this many objects."""
    for index in range(keys):
        noise = index * 0x9E3779B97F4A7C15F39CC0605CEDC835 & (1 << 128) - 1  # a bijection: no two ETags are the same
        yield ObjectInfo(key_of(index), 200_000 + noise % 3_000_000, f"{noise:032x}", {})


class MemoryCurve:
    """Records the resident memory of this process over time. A context manager; `points` is [[seconds, MiB], ...]."""

    def __init__(self) -> None:
        self.points: list[list[float]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = time.monotonic()

    def _run(self) -> None:
        while True:
            self.points.append([round(time.monotonic() - self._began, 2), round(resident_mib(), 1)])
            if self._end.wait(_CURVE_SECONDS):
                return

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()


def resident_mib() -> float:
    """Return the resident set size of this process in MiB (proc(5), statm: pages)."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 -- several times a second
        return int(file.read().split()[1]) * _PAGE / 2**20


class SubmitBenchmark:
    """The actions, over one set of connections."""

    def __init__(self, stack: ExitStack, keys: int, dest: str, job: str = "", jobs: int = 0) -> None:
        config = settings.load()
        self._store = SyntheticListing(config.s3)
        self._store.keys = keys
        stack.callback(self._store.close)
        self._ledger = stack.enter_context(Ledger(config.redis))
        self._celery = make_celery(config, client_name="maskmill-submit-benchmark")
        self._keys, self._dest, self._job, self._jobs = keys, S3Url.folder(dest), job, jobs

    def submit(self) -> dict[str, Any]:
        """List alone, then list and submit; the difference is the cost of submitting."""
        wall, cpu, sample = time.monotonic(), time.process_time(), min(self._keys, _LISTING_SAMPLE)
        for _ in synthetic_objects(sample):
            pass
        scale = self._keys / sample
        listing = {
            "wall_seconds": (time.monotonic() - wall) * scale,
            "cpu_seconds": (time.process_time() - cpu) * scale,
        }
        idle = resident_mib()
        with MemoryCurve() as memory:
            wall, cpu = time.monotonic(), time.process_time()
            submitter = Submitter(self._store, self._ledger, self._celery)
            submitted = submitter.submit(str(SOURCE), str(self._dest), OutputOptions())
            whole = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
        view = submitted.view
        return {
            "job": view.job,
            "images": view.total,
            "chunks": view.chunks,
            "chunk_images": view.chunk_images,
            "published": view.cursor,
            "listing": listing,
            "whole": whole,
            "idle_mib": idle,
            "curve": memory.points,
        }

    def status(self) -> dict[str, Any]:
        """Call `Ledger.view` 1,000 times on one connection."""
        self._ledger.view(self._job)
        samples = []
        for _ in range(_STATUS_CALLS):
            began = time.perf_counter()
            self._ledger.view(self._job)
            samples.append((time.perf_counter() - began) * 1000)
        cuts = statistics.quantiles(samples, n=100, method="inclusive")
        return {"calls": len(samples), "p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(samples)}

    def history(self) -> dict[str, Any]:
        """Write outcomes of the first half of the job as the bookkeeper does; one in a thousand failed."""
        half = self._keys // 2
        for number, first in enumerate(range(0, half, outcome_log.PART_OUTCOMES)):
            lines = [_line(index) for index in range(first, min(half, first + outcome_log.PART_OUTCOMES))]
            outcome_log.write_part(self._store, self._dest, self._job, epoch=0, first_id=f"{number + 1}-0", lines=lines)
        return {"outcomes": half}

    def recover(self) -> dict[str, Any]:
        """Delete the job from Redis, and rebuild it from S3."""
        self._ledger.forget(self._job)
        wall, cpu = time.monotonic(), time.process_time()
        view = recover(self._store, self._ledger, self._dest, self._job)
        return {
            "wall_seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "ok": view.ok,
            "failed": view.failed,
            "status": view.status.value,
        }

    def leave_jobs(self) -> dict[str, Any]:
        """Write the job folders of `jobs` jobs, each half done, and nothing to Redis: what is left if Redis is lost."""
        half = self._keys // 2
        for number in range(self._jobs):
            dest, job = self._dest / f"{number}/", f"lost-{number:06d}"
            options, writer = JobOptions(source=SOURCE, dest=dest), manifest.Writer(self._store, dest, job)
            for item in synthetic_objects(self._keys):
                writer.add(item)
            writer.close()
            facts: dict[str, Any] = {"options": options.model_dump(mode="json")}
            facts |= {"policy": JobPolicy().model_dump(mode="json"), "total": self._keys, "bytes": writer.bytes}
            facts |= {"chunk_images": _CHUNK_IMAGES, "submitted_at": 1.0}
            outcome_log.write_json(self._store, dest, job, outcome_log.REQUEST, facts)
            for first in range(0, half, _LOGGED_AT_ONCE):
                lines = [_line(index) for index in range(first, min(half, first + _LOGGED_AT_ONCE))]
                outcome_log.write_part(self._store, dest, job, epoch=0, first_id=f"{first + 1}-0", lines=lines)
        return {"jobs": self._jobs}

    def recover_all(self) -> dict[str, Any]:
        """Rebuild all these jobs; count the requests to S3."""
        requests = self._store.count_requests()
        wall, cpu = time.monotonic(), time.process_time()
        found = list(recover_all(self._store, self._ledger, [self._dest]))
        seconds = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
        recovered = [job for job in found if job.finding is Finding.RECOVERED]
        done = sum(job.done for job in recovered)
        return seconds | {"jobs": len(recovered), "images": self._keys, "done": done, "requests": dict(requests)}

    def cancel(self) -> dict[str, Any]:
        """Cancel the job; count the commands that Redis runs for it, and the time that the caller waits."""
        client = self._ledger.connection.client
        client.ping()
        before = _commands(client)
        began = time.perf_counter()
        view = self._ledger.cancel(self._job)
        milliseconds = (time.perf_counter() - began) * 1000
        spent = {name: count - before.get(name, 0) for name, count in _commands(client).items()}
        spent.pop("info", None)
        used = {name: count for name, count in spent.items() if count}
        return {"ms": milliseconds, "commands": sum(used.values()), "by_command": used, "status": view.status.value}

    def retry(self) -> dict[str, Any]:
        """Reopen the ended job for the images that failed."""
        before = self._ledger.view(self._job)
        began = time.monotonic()
        view = self._ledger.reopen(self._job, failed=True, cancelled=False)
        seconds = time.monotonic() - began
        return {"wall_seconds": seconds, "images": before.failed - view.failed}


def _line(index: int) -> str:
    kind = OutcomeKind.FAILED if index % FOLDER_IMAGES == 1 else OutcomeKind.OK
    found: dict[str, Any] = {"index": index, "key": key_of(index), "kind": kind.value}
    if kind is OutcomeKind.FAILED:
        found |= {"code": "undecodable", "message": "not a picture"}
    else:
        found |= {"outputs": [key_of(index).removesuffix("jpg") + "png"]}
    return json.dumps(found | {"seconds": 0.25 + index % 100 / 400})


def _commands(client: Any) -> dict[str, int]:
    """Return the calls of each command so far, including those inside scripts."""
    found = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in found.items()}


def main(action: str, arguments: str) -> None:
    """Do one thing, print what was measured, and wait for the end of the input."""
    options = json.loads(arguments)
    if options.pop("one_core", True):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with ExitStack() as stack:
        found = getattr(SubmitBenchmark(stack, **options), action)()
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
