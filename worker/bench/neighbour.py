"""`worker bench neighbour`: what one tenant's jobs cost another tenant's job of a hundred images.

    the whole system: embedded Redis and S3 server, `worker start` with the network `contrast`
    └── for each neighbour, in turns: the job alone, then the job beside the neighbour's jobs

Two tenants who share the workers get half each, so a job beside one that never ends should take twice as long as alone.
The images of the neighbour do not exist: each fails after one request. Memory of Redis and of the steward is read
while both tenants have work.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.measure import OnProgress
from worker.bench.harness.system_under_test import SOURCE, SystemUnderTest
from worker.bench.images import jpeg
from worker.bench.neighbour_report import SCHEMA_VERSION, Beside, NeighbourReport
from worker.contract import redis_keys
from worker.contract.errors import SetupError
from worker.contract.messages import MAX_CHUNK_IMAGES, JobOptions, JobPolicy
from worker.contract.s3url import S3Url
from worker.contract.storage import manifest
from worker.contract.storage.s3 import ObjectInfo
from worker.cpu import topology
from worker.processes.memory import peak_bytes
from worker.standalone.services import DEFAULT_BUCKET

_MEGAPIXELS = 1.0
_WAIT_SECONDS = 1800.0
_POLL_SECONDS = 0.2
_STEWARD = b"worker.steward.process"
_TENANTS = [f"{DEFAULT_BUCKET}/neighbour/", f"{DEFAULT_BUCKET}/measured/"]
_ONE_IMAGE = 1
_CHUNK = 64
_MEASURED_CHUNK = 5
"""Images per chunk of the measured job. Workers are not interrupted: the job waits once for the chunks that run."""


@dataclass(frozen=True)
class NeighbourOptions:
    """What to measure."""

    images: int = 100
    """Of the measured job."""

    jobs: int = 1000
    """One-image jobs of the neighbour."""

    tiny: int = 100_000
    """Tiny failing images in one job of the neighbour."""

    limit: int = 1_000_000
    """Images of the neighbour's largest job, in the largest chunks."""

    rounds: int = 1


def run(options: NeighbourOptions, on_progress: OnProgress) -> NeighbourReport:
    """Measure the job alone and beside each neighbour.

    Raises:
        SetupError: a service or the workers failed.
    """
    load_before = machine_facts.load_average()
    environment = {
        "MASKMILL_MODEL__SOURCE": "builtin:contrast",
        "MASKMILL_PLAN__PROCESSES": "1",
        "MASKMILL_JOBS__TENANTS": json.dumps(_TENANTS),
    }
    with (
        tempfile.TemporaryDirectory(prefix="maskmill-bench-") as folder,
        SystemUnderTest(Path(folder), environment) as system,
    ):
        system.upload(jpeg(None, _MEGAPIXELS)[0], options.images)
        system.start_workers()
        system.wait_for_workers(1)
        bench = _Bench(system, options)
        bench.measured()  # the first job warms everything up
        rows = [row for number in range(options.rounds) for row in bench.round(number, on_progress)]
    return NeighbourReport(
        {
            "schema_version": SCHEMA_VERSION,
            "benchmark": "neighbour",
            "machine": machine_facts.facts(topology.read()),
            "load_average_before": load_before,
            "load_average_after": machine_facts.load_average(),
            "images": options.images,
            "rows": rows,
        }
    )


class _Bench:
    """The jobs of both tenants in one system."""

    def __init__(self, system: SystemUnderTest, options: NeighbourOptions) -> None:
        self._system, self._options = system, options
        self._count = 0

    def round(self, number: int, on_progress: OnProgress) -> Iterator[Beside]:
        """Measure the job alone and beside each neighbour, in turns."""
        options = self._options
        neighbours: dict[str, tuple[float, Callable[[], list[str]]]] = {
            f"{options.tiny:,} tiny images that fail": (2.0, lambda: [self._job("neighbour", options.tiny, _CHUNK)]),
            f"{options.jobs:,} jobs of one image": (
                2.0,
                lambda: [self._job("neighbour", 1, _ONE_IMAGE) for _ in range(options.jobs)],
            ),
            "a paused job": (1.0, self._paused),
            f"{options.limit:,} images in the largest chunks": (
                2.0,
                lambda: [self._job("neighbour", options.limit, MAX_CHUNK_IMAGES)],
            ),
        }
        for name, (fair, start) in neighbours.items():
            on_progress(f"round {number + 1}: alone")
            alone = self.measured()
            on_progress(f"round {number + 1}: beside {name}")
            jobs = start()
            before = self._done(jobs)
            beside = self.measured()
            yield {
                "neighbour": name,
                "fair": fair,
                "alone_seconds": round(alone, 2),
                "beside_seconds": round(beside, 2),
                "neighbour_images": self._done(jobs) - before,
                "redis_mib": round(self._redis_bytes() / 2**20, 1),
                "steward_peak_mib": round(peak_bytes(self._steward()) / 2**20, 1),
            }
            self._forget(jobs)

    def measured(self) -> float:
        """Run the measured job; return the seconds until its last image has an outcome."""
        job = self._job("measured", self._options.images, _MEASURED_CHUNK, source=SOURCE)
        view = self._system.wait_for(job)
        return (view.completed_at or 0.0) - (view.submitted_at or 0.0)

    def _paused(self) -> list[str]:
        job = self._job("neighbour", self._options.tiny, _CHUNK)
        self._system.ledger.pause(job)
        return [job]

    def _job(self, tenant: str, images: int, chunk: int, source: S3Url | None = None) -> str:
        """Submit a job as the producer does, without a listing; without `source`, its images do not exist."""
        self._count += 1
        job = f"{tenant}-{self._count:06d}"
        dest = S3Url(DEFAULT_BUCKET, f"{tenant}/{job}/")
        options = JobOptions(source=source or S3Url(DEFAULT_BUCKET, "nothing/"), dest=dest)
        ledger, writer = self._system.ledger, manifest.Writer(self._system.store, dest, job)
        ledger.create(job, options, JobPolicy(skip_existing=False))
        for index in range(images):
            writer.add(ObjectInfo(f"{index:06d}.jpg", 1, "", {}))
        writer.close()
        ledger.seal(job, total=images, chunk_images=chunk, size=images)
        return job

    def _done(self, jobs: list[str]) -> int:
        return sum(self._system.ledger.view(job).done for job in jobs)

    def _forget(self, jobs: list[str]) -> None:
        """Remove the neighbour's jobs and their messages, and wait until the workers are idle."""
        ledger = self._system.ledger
        for job in jobs:
            ledger.forget(job)
        client, prefix = ledger.connection.client, ledger.connection.prefix
        client.delete(*(redis_keys.queue(prefix, name) for name in redis_keys.QUEUES))
        deadline = time.monotonic() + _WAIT_SECONDS
        while client.hlen(redis_keys.unacked(prefix)):
            if time.monotonic() > deadline:
                raise SetupError(f"the workers still hold messages of the neighbour; see {self._system.log}")
            time.sleep(_POLL_SECONDS)

    def _redis_bytes(self) -> int:
        return int(self._system.ledger.connection.client.info("memory")["used_memory"])

    def _steward(self) -> int:
        """Return the process id of the steward: a child of `worker start`."""
        for entry in Path("/proc").iterdir():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1] if entry.name.isdecimal() else ""
                if parent == str(self._system.supervisor) and _STEWARD in (entry / "cmdline").read_bytes():
                    return int(entry.name)
            except OSError:
                continue
        raise SetupError(f"the workers have no steward; see {self._system.log}")
