"""Prometheus metrics of the whole fleet, read from Redis for each scrape on the node that leads."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric

from worker.contract.errors import MaskmillError
from worker.contract.job import JobStatus
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.fleet import Fleet
from worker.contract.messages import OutcomeKind
from worker.contract.queue.dispatcher import window
from worker.telemetry.metrics import folder


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
