"""What operators watch: Prometheus metrics of every process of a node, served by its steward.

With `MASKMILL_METRICS__PORT` set, the supervisor gives all its processes a folder for their counts
(prometheus_client's multi-process mode: files that outlive a killed process), and the steward serves the sum.
Names and units follow Prometheus' conventions: base units, `_total` for counters.
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

IMAGES = Counter("maskmill_images", "Images that got their outcome here.", ["outcome", "code"])
STAGE = Histogram("maskmill_stage_seconds", "Wall time of one stage of one image.", ["stage"], buckets=_BUCKETS)
STAGE_CPU = Counter("maskmill_stage_cpu_seconds", "CPU time of the image threads by stage.", ["stage"])
CHUNKS = Counter("maskmill_chunks", "Deliveries of chunk messages, by what came of them.", ["verdict"])
CORE_SECONDS = Counter("maskmill_core_seconds", "Time of processes on chunks times their cores.")
DEATHS = Counter("maskmill_child_deaths", "Model processes that died over a chunk.", ["reason"])
LEASES = Counter("maskmill_lease_renewals", "Renewals of message leases.", ["result"])
PUBLISHED = Counter("maskmill_chunks_published", "Chunk messages that this node's steward published.")
REPUBLISHED = Counter("maskmill_chunks_republished", "Lost chunks that it published again.")
IN_FLIGHT = Gauge("maskmill_images_in_flight", "Images in work at the moment.", multiprocess_mode="livesum")
REFUSED = Counter("maskmill_messages_refused", "What was in a queue and is no message of ours.", ["reason"])
MODEL_LOAD = Gauge(
    "maskmill_model_load_seconds", "Time to load and warm up the network.", ["worker"], multiprocess_mode="livemax"
)
MODEL_INFO = Gauge(
    "maskmill_model_info",
    "1 for what each process runs.",
    ["worker", "model", "size", "precision", "inference_precision", "kernels"],
    multiprocess_mode="livemax",
)


def outcome(found: Outcome) -> None:
    """Count one image."""
    IMAGES.labels(found.kind.value, found.code).inc()


def working(change: int) -> None:
    """An image was begun (1) or is out of work (-1)."""
    IN_FLIGHT.inc(change)


def refused(reason: str) -> None:
    """Count one message that the gate dropped."""
    REFUSED.labels(reason).inc()


def stage(name: Stage, wall: float, cpu: float) -> None:
    """Count one stage of one image: a `worker.telemetry.timing.Observe`."""
    STAGE.labels(name.value).observe(wall)
    STAGE_CPU.labels(name.value).inc(cpu)


def forget_dead(folder: Path) -> None:
    """Drop gauges of processes that are gone; their counts stay."""
    for file in folder.glob("gauge_live*_*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            multiprocess.mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]


def folder() -> Path | None:
    """Where this process counts, if its supervisor wants to know."""
    place = os.environ.get(FOLDER_VARIABLE)
    return Path(place) if place else None
