"""Submits a job of any size without a picture, and measures itself: the producer's side of `worker bench submit`.

Only the listing is made up. Everything else is what `producer submit`, `status`, `cancel`, `retry` and `recover` do:
the same code, a real Redis, manifest parts in a real S3. A process of its own, so that its memory is a producer's.

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
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

from producer.recover import recover
from producer.submit import Submitter
from worker.contract import settings
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import OutcomeKind
from worker.contract.outputs import OutputOptions
from worker.contract.queue.celery_app import make_celery
from worker.contract.storage import outcome_log
from worker.contract.storage.s3 import ObjectInfo, ObjectStore, S3Url

SOURCE = "s3://bucket-that-is-not-there/photos/"
"""Nothing is ever asked of it."""

FOLDER_IMAGES = 1_000

_LISTING_SAMPLE = 1_000_000
"""Keys after which the cost of the listing alone is known well enough."""

_CURVE_SECONDS = 0.25
_STATUS_CALLS = 1_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


class MadeUpListing(ObjectStore):
    """The real store, apart from the listing of `SOURCE`."""

    keys = 0

    def list(self, folder: S3Url, **options: Any) -> Iterator[ObjectInfo]:
        """Keys in the order in which S3 lists them, with sizes and ETags that compress as real ones do: badly."""
        return made_up(self.keys) if str(folder) == SOURCE else super().list(folder, **options)

    def check(self, folder: S3Url) -> None:
        """Of the made-up source nothing can be asked."""
        if str(folder) != SOURCE:
            super().check(folder)


def key_of(index: int) -> str:
    """`catalogue/000123/IMG_00123456.jpg`."""
    return f"catalogue/{index // FOLDER_IMAGES:06d}/IMG_{index:08d}.jpg"


def made_up(keys: int) -> Iterator[ObjectInfo]:
    """So many objects."""
    for index in range(keys):
        noise = index * 0x9E3779B97F4A7C15F39CC0605CEDC835 & (1 << 128) - 1  # a bijection: no two ETags are the same
        yield ObjectInfo(key_of(index), 200_000 + noise % 3_000_000, f"{noise:032x}", {})


class Memory:
    """Resident memory of this process over time: a context manager, `curve` is [[seconds, MiB], ...]."""

    def __init__(self) -> None:
        self.curve: list[list[float]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = time.monotonic()

    def _run(self) -> None:
        while True:
            self.curve.append([round(time.monotonic() - self._began, 2), round(resident_mib(), 1)])
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
    """Of this process now (proc(5), statm: pages)."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 -- several times a second
        return int(file.read().split()[1]) * _PAGE / 2**20


class Rehearsal:
    """The actions, over one set of connections."""

    def __init__(self, stack: ExitStack, keys: int, dest: str, job: str = "") -> None:
        config = settings.load()
        self._store = MadeUpListing(config.s3)
        self._store.keys = keys
        stack.callback(self._store.close)
        self._ledger = stack.enter_context(Ledger(config.redis))
        self._celery = make_celery(config, client_name="maskmill-rehearsal")
        self._keys, self._dest, self._job = keys, dest, job

    def submit(self) -> dict[str, Any]:
        """List alone, then list and submit: the difference is what submitting costs."""
        wall, cpu, sample = time.monotonic(), time.process_time(), min(self._keys, _LISTING_SAMPLE)
        for _ in made_up(sample):
            pass
        scale = self._keys / sample
        listing = {
            "wall_seconds": (time.monotonic() - wall) * scale,
            "cpu_seconds": (time.process_time() - cpu) * scale,
        }
        idle = resident_mib()
        with Memory() as memory:
            wall, cpu = time.monotonic(), time.process_time()
            submitter = Submitter(self._store, self._ledger, self._celery)
            submitted = submitter.submit(SOURCE, self._dest, OutputOptions())
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
            "curve": memory.curve,
        }

    def status(self) -> dict[str, Any]:
        """`Ledger.view`, over and over on one connection."""
        self._ledger.view(self._job)
        samples = []
        for _ in range(_STATUS_CALLS):
            began = time.perf_counter()
            self._ledger.view(self._job)
            samples.append((time.perf_counter() - began) * 1000)
        cuts = statistics.quantiles(samples, n=100, method="inclusive")
        return {"calls": len(samples), "p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(samples)}

    def history(self) -> dict[str, Any]:
        """Outcomes of the first half of the job as the bookkeeper writes them, one in a thousand failed."""
        dest, half = S3Url.parse(self._dest), self._keys // 2
        for number, first in enumerate(range(0, half, outcome_log.PART_OUTCOMES)):
            lines = [_line(index) for index in range(first, min(half, first + outcome_log.PART_OUTCOMES))]
            outcome_log.write_part(self._store, dest, self._job, epoch=0, first_id=f"{number + 1}-0", lines=lines)
        return {"outcomes": half}

    def recover(self) -> dict[str, Any]:
        """Forget the job in Redis, and put it back from S3."""
        self._ledger.forget(self._job)
        wall, cpu = time.monotonic(), time.process_time()
        view = recover(self._store, self._ledger, S3Url.parse(self._dest), self._job)
        return {
            "wall_seconds": time.monotonic() - wall,
            "cpu_seconds": time.process_time() - cpu,
            "ok": view.ok,
            "failed": view.failed,
            "status": view.status.value,
        }

    def cancel(self) -> dict[str, Any]:
        """What Redis does for it, and how long the caller waits."""
        client = self._ledger.link.client
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
        """Reopen the ended job for what failed."""
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
    """Calls of each command so far, those inside scripts included."""
    found = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in found.items()}


def main(action: str, arguments: str) -> None:
    """Do one thing, print what was measured, and wait for the end of the input."""
    options = json.loads(arguments)
    if options.pop("one_core", True):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with ExitStack() as stack:
        found = getattr(Rehearsal(stack, **options), action)()
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
