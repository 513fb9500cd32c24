"""Prometheus metrics of the whole fleet, read from Redis at each scrape of the node that leads the role `feed`."""

from __future__ import annotations

import heapq
import itertools
import logging
import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, multiprocess
from prometheus_client.core import GaugeMetricFamily, Metric

from worker.contract.errors import AccessDenied, BrokerUnavailable
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.backlog import Backlog, age
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.replication import Replicas
from worker.contract.log_fields import event
from worker.contract.messages import OutcomeKind
from worker.contract.queue.dispatcher import window
from worker.telemetry.metrics import folder

log = logging.getLogger(__name__)

_MAX_JOBS = 1_000
"""Jobs with series of their own, the oldest ones; totals cover all."""

_READ_SECONDS = 5.0
"""Time after which no further part of the jobs is read: Prometheus waits 10 s. Totals are too small then."""


class FleetCollector:
    """Reads the state of all jobs from Redis at each scrape; on other nodes only whether Redis is reachable."""

    def __init__(
        self,
        backlog: Backlog,
        fleet: Fleet,
        leads: Callable[[], bool],
        replicas: Callable[[], Replicas],
        replicas_wanted: int,
    ) -> None:
        """Read nothing yet.

        Args:
            backlog: all jobs.
            fleet: all workers.
            leads: tells whether this node's steward currently feeds the fleet.
            replicas: reads the replicas of Redis.
            replicas_wanted: how many of them must be in step.
        """
        self._backlog, self._fleet, self._leads = backlog, fleet, leads
        self._replicas, self._wanted = replicas, replicas_wanted
        self._failed = False

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of one scrape; only `maskmill_redis_up` if Redis does not answer as expected."""
        up = GaugeMetricFamily("maskmill_redis_up", "1 if this node's steward reaches Redis.")
        found: list[Metric] = []
        try:
            workers = len(self._fleet.live())
            if self._leads():
                found = list(self._read(workers))
            up.add_metric([], 1)
        except (BrokerUnavailable, AccessDenied):
            up.add_metric([], 0)
        except Exception as error:  # noqa: BLE001 -- metrics of the node are served whatever Redis holds
            up.add_metric([], 1)
            found = []
            if not self._failed:
                log.error(error, extra=event("fleet_metrics_failed"))
            self._failed = True
        else:
            self._failed = False
        return [up, *found]

    def _read(self, workers: int) -> Iterable[Metric]:
        yield _gauge("maskmill_workers_live", "Live worker processes.", workers)
        yield _gauge("maskmill_queue_messages", "Chunk messages waiting in the queue.", self._backlog.queued())
        yield _gauge("maskmill_window_messages", "Chunk messages that the leader keeps in the queue.", window(workers))
        replicas = self._replicas()
        yield _gauge(
            "maskmill_redis_replicas", "Replicas that are connected to the primary of Redis.", replicas.connected
        )
        yield _gauge("maskmill_redis_replicas_in_step", "Replicas that follow the primary closely.", replicas.in_step)
        yield _gauge(
            "maskmill_redis_replicas_wanted",
            "Replicas that must be in step, by the settings of the leader.",
            self._wanted,
        )
        # Not `job`: Prometheus gives every series a label of that name, its own.
        images = GaugeMetricFamily(
            "maskmill_job_images", "Images of active jobs by outcome.", labels=["job_id", "outcome"]
        )
        total = GaugeMetricFamily("maskmill_job_images_submitted", "Images of active jobs.", labels=["job_id"])
        status = GaugeMetricFamily(
            "maskmill_job_info", "1 for each active job.", labels=["job_id", "status", "priority"]
        )
        backlog = outstanding = 0
        oldest: list[JobView] = []
        until = time.monotonic() + _READ_SECONDS
        for jobs in self._backlog.parts():
            running = [job.view for job in jobs if job.view.status is JobStatus.RUNNING]
            backlog += sum((view.total or 0) - view.done for view in running)
            outstanding += sum(job.outstanding for job in jobs)
            oldest = heapq.nsmallest(_MAX_JOBS, itertools.chain(oldest, (job.view for job in jobs)), key=age)
            if time.monotonic() >= until:
                break
        for view in oldest:
            status.add_metric([view.job, view.status.value, view.policy.priority.value], 1)
            total.add_metric([view.job], view.total or 0)
            for kind in OutcomeKind:
                images.add_metric([view.job, kind.value], getattr(view, kind.value))
        yield from (images, total, status)
        yield _gauge("maskmill_jobs_unreadable", "Jobs whose records cannot be read.", self._backlog.unreadable())
        yield _gauge("maskmill_backlog_images", "Images of running jobs without an outcome; scale by it.", backlog)
        yield _gauge("maskmill_chunks_outstanding", "Chunks published and not finished.", outstanding)


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], value)
    return family


def node_registry(fleet: FleetCollector) -> CollectorRegistry:
    """Return a registry with all metrics of this node."""
    registry = CollectorRegistry()
    if folder():
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(fleet)
    return registry
