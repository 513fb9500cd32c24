"""Prometheus metrics of all processes of a node, served by its steward.

If `MASKMILL_METRICS__PORT` is set, the supervisor gives all its processes a common folder for their counts, and the
steward serves the sums. This is the multi-process mode of prometheus_client, whose files outlive a killed process.
Names and units follow the conventions of Prometheus: base units, `_total` for counters.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, multiprocess

from worker.contract.messages import Outcome
from worker.telemetry.timing import Stage

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Set by the supervisor, read by prometheus_client when it is imported."""

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

IMAGES = Counter("maskmill_images", "Images that received their outcome on this node.", ["outcome", "code"])
STAGE = Histogram("maskmill_stage_seconds", "Wall time of one stage of one image.", ["stage"], buckets=_BUCKETS)
STAGE_CPU = Counter("maskmill_stage_cpu_seconds", "CPU time of the image threads by stage.", ["stage"])
CHUNKS = Counter("maskmill_chunks", "Deliveries of chunk messages by the verdict of the ledger.", ["verdict"])
CORE_SECONDS = Counter("maskmill_core_seconds", "Time that processes spent on chunks, times their cores.")
DEATHS = Counter("maskmill_child_deaths", "Model processes that died while running a chunk.", ["reason"])
LEASES = Counter("maskmill_lease_renewals", "Renewals of message leases by result.", ["result"])
PUBLISHED = Counter("maskmill_chunks_published", "Chunk messages that the steward of this node published.")
REPUBLISHED = Counter("maskmill_chunks_republished", "Lost chunks that the steward of this node published again.")
IN_FLIGHT = Gauge("maskmill_images_in_flight", "Images in flight.", multiprocess_mode="livesum")
REFUSED = Counter("maskmill_messages_refused", "Queue entries that admission refused, by reason.", ["reason"])
STEWARD_STARTS = Counter("maskmill_steward_starts", "Starts of the steward of this node.")
STEWARD_FAILURES = Counter(
    "maskmill_steward_failures",
    "Failures of a role of the steward of this node, at one job or as a whole.",
    ["role", "code"],
)
PRIMARY_CHANGES = Counter(
    "maskmill_redis_primary_changes", "Changes or restarts of the primary of Redis that the steward of this node saw."
)
ENDS_UNCONFIRMED = Counter(
    "maskmill_job_ends_unconfirmed", "Ends of jobs that too few replicas of Redis confirmed in time."
)
STORE_REFUSES = Gauge(
    "maskmill_store_refuses_worker",
    "1 while S3 refuses the credentials or the clock of a worker process, which takes no work then.",
    ["worker"],
    multiprocess_mode="livemax",
)
MODEL_LOAD = Gauge(
    "maskmill_model_load_seconds", "Time to load and warm up the network.", ["worker"], multiprocess_mode="livemax"
)
MODEL_INFO = Gauge(
    "maskmill_model_info",
    "1 for the network that each process runs.",
    ["worker", "model", "size", "precision", "inference_precision", "kernels"],
    multiprocess_mode="livemax",
)


def outcome(found: Outcome) -> None:
    """Count an image by its outcome and code."""
    IMAGES.labels(found.kind.value, found.code).inc()


def working(change: int) -> None:
    """Count an image as started (1) or ended (-1)."""
    IN_FLIGHT.inc(change)


def refused(reason: str) -> None:
    """Count a message that admission refused."""
    REFUSED.labels(reason).inc()


def steward_failed(role: str, code: str) -> None:
    """Count a failure of a role of the steward."""
    STEWARD_FAILURES.labels(role, code).inc()


def stage(name: Stage, wall: float, cpu: float) -> None:
    """Count a stage of an image. Times are in seconds. Has the type `worker.telemetry.timing.Observe`."""
    STAGE.labels(name.value).observe(wall)
    STAGE_CPU.labels(name.value).inc(cpu)


def forget_dead(folder: Path) -> None:
    """Delete the gauges of processes that have ended. Their counters stay."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            multiprocess.mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]


def folder() -> Path | None:
    """Return the folder for the counts of this process; None if metrics are off."""
    place = os.environ.get(FOLDER_VARIABLE)
    return Path(place) if place else None
