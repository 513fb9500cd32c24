"""What operators watch: Prometheus metrics of every process of a node, served by its steward.

With `MASKMILL_METRICS__PORT` set, the supervisor gives all its processes a folder for their counts
(prometheus_client's multi-process mode: files that outlive a killed process), and the steward serves the sum.
Names and units follow Prometheus' conventions: base units, `_total` for counters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric

from worker.contract.errors import MaskmillError
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.fleet import Fleet
from worker.contract.messages import Outcome, OutcomeKind
from worker.contract.queue.dispatcher import window
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


class FleetCollector:
    """The state of all jobs, read from Redis when somebody asks; nothing on nodes that do not lead."""

    def __init__(self, backlog: Backlog, fleet: Fleet, leads: Callable[[], bool]) -> None:
        """`leads`: whether this node's steward feeds the fleet at the moment."""
        self._backlog, self._fleet, self._leads = backlog, fleet, leads

    def collect(self) -> Iterable[Metric]:
        """Called by the registry for each scrape; a Redis that does not answer leaves `maskmill_redis_up` at 0."""
        up = GaugeMetricFamily("maskmill_redis_up", "1 if this node's steward reaches Redis.")
        found: list[Metric] = []
        try:
            workers = len(self._fleet.live())
            if self._leads():
                found = list(self._read(workers))
            up.add_metric([], 1)
        except MaskmillError:
            up.add_metric([], 0)
        return [up, *found]

    def _read(self, workers: int) -> Iterable[Metric]:
        yield _gauge("maskmill_workers_live", "Worker processes heard of lately.", workers)
        yield _gauge("maskmill_queue_messages", "Chunk messages waiting in the queue.", self._backlog.queued())
        yield _gauge("maskmill_window_messages", "Chunk messages that the leader keeps waiting.", window(workers))
        # Not `job`: Prometheus gives every series a label of that name, its own.
        images = GaugeMetricFamily(
            "maskmill_job_images", "Images of active jobs by outcome.", labels=["job_id", "outcome"]
        )
        total = GaugeMetricFamily("maskmill_job_images_submitted", "Images of active jobs.", labels=["job_id"])
        status = GaugeMetricFamily(
            "maskmill_job_info", "1 for each active job.", labels=["job_id", "status", "priority"]
        )
        backlog = in_work = 0
        for job in self._backlog.active():
            view = job.view
            left = (view.total or 0) - view.done
            backlog += left if view.status is JobStatus.RUNNING else 0
            in_work += job.outstanding
            status.add_metric([view.job, view.status.value, view.policy.priority.value], 1)
            total.add_metric([view.job], view.total or 0)
            for kind in OutcomeKind:
                images.add_metric([view.job, kind.value], getattr(view, kind.value))
        yield from (images, total, status)
        yield _gauge("maskmill_backlog_images", "Images of running jobs without an outcome: what to scale by.", backlog)
        yield _gauge("maskmill_chunks_outstanding", "Chunks published and not finished.", in_work)


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family


def node_registry(fleet: FleetCollector) -> CollectorRegistry:
    """Everything that this node has to tell."""
    registry = CollectorRegistry()
    if folder():
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(fleet)
    return registry


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
