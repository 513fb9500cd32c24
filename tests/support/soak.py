"""Run many small images through one worker process and record what must not grow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support import commands
from support.installation import Installation
from worker.bench.harness import usage
from worker.contract.job import ENDED
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore
from worker.processes.memory import resident_bytes


@dataclass(frozen=True)
class ResourceUse:
    """Resources of the model process, and connections to Redis, at one moment."""

    done: int
    memory_mib: float
    handles: int
    threads: int
    connections: int


@dataclass(frozen=True)
class SoakRun:
    """Resource use from the first to the last image."""

    samples: tuple[ResourceUse, ...]
    connections_before: int

    def grown(self, what: Callable[[ResourceUse], float]) -> float:
        """Return the median of the last third less that of the second; the first third is warm-up."""
        third = len(self.samples) // 3
        middle, last = self.samples[third : 2 * third], self.samples[2 * third :]
        return statistics.median(map(what, last)) - statistics.median(map(what, middle))


def soak(
    installation: Installation, ledger: Ledger, picture: bytes, images: int, log: Path, *, seconds: float
) -> SoakRun:
    """Run a job with `images` copies of a picture, at most for `seconds`, and record resource use meanwhile."""
    with ObjectStore(installation.settings.s3) as store:
        for number in range(images):
            store.put(S3Url(installation.bucket, f"photos/{number:05d}.jpg"), picture, content_type="image/jpeg")
    submitted = commands.run(
        "producer",
        *("submit", f"s3://{installation.bucket}/photos/", f"s3://{installation.bucket}/masks/", "--json", "--yes"),
        settings=installation.environment | {"MASKMILL_JOBS__CHUNK_IMAGES": "50"},
    )
    assert submitted.code == 0, submitted.err
    job = submitted.lines[0]["job"]
    samples: list[ResourceUse] = []
    before = len(ledger.connection.client.client_list())
    with commands.workers(installation.environment | {"MASKMILL_PLAN__PROCESSES": "1"}, log) as worker:
        deadline = time.monotonic() + seconds
        while not (view := ledger.view(job)).ended:
            assert view.status not in ENDED
            assert time.monotonic() < deadline, f"{view.done} of {images} images after {seconds:g} s"
            for pid in usage.model_processes(worker.pid)[:1] if view.done else ():
                samples.append(
                    ResourceUse(
                        view.done,
                        resident_bytes(pid) / 2**20,
                        usage.handles(pid),
                        usage.threads(pid),
                        len(ledger.connection.client.client_list()),
                    )
                )
            time.sleep(seconds / 1000)
    assert ledger.view(job).ok == images
    return SoakRun(tuple(samples), before)
