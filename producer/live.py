"""Live workers, why a job waits, and which stages the last images of a job spent their time in."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable

from producer.wording import iso_time
from worker.contract.job import JobStatus, JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.fleet import Fleet, StartFailure, WorkerFacts
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import Outcome

_LAST_IMAGES = 200


def workers(ledger: Ledger) -> list[WorkerFacts]:
    """Return the live worker processes, sorted by name; a process that is still loading its model does not count."""
    return sorted(Fleet(ledger.connection).facts(), key=lambda worker: worker.name)


def why_waiting(ledger: Ledger, view: JobView) -> str:
    """Return why a job makes no progress; empty if nothing is known.

    It is paused, waits for an earlier job that writes to the same place or for an S3 that fails, or has no worker.
    """
    if view.status is JobStatus.PAUSED:
        return f"paused: `producer resume {view.job}` continues it"
    if view.status is JobStatus.RUNNING and not view.done:
        other = Backlog(ledger.connection).first_blocker(view)
        if other is not None:
            return f"waits for {describe_blocker(other)}"
    if view.waits_for_store(time.time()):
        return f"waits for S3 since {iso_time(view.wait_since or view.wait_at or 0.0)}: {view.wait_for}"
    fleet = Fleet(ledger.connection)
    if fleet.facts():
        return ""
    return without_worker(fleet.last_failure(), loading=len(fleet.live()))


def describe_blocker(other: JobView) -> str:
    """Return `job X (paused), which writes to s3://...`."""
    return f"job {other.job} ({other.status.value}), which writes to {other.options.dest}"


def without_worker(failure: StartFailure | None, *, loading: int = 0) -> str:
    """Return `no live worker`, with the reason of the last failure to start, or with what to do.

    Args:
        failure: the last failure to start.
        loading: live processes that are still loading their model.
    """
    if failure is not None:
        return f"no live worker; last reason: {failure.reason} (node {failure.node}, {iso_time(failure.at)})"
    if loading:
        return f"no live worker yet: {loading:,} loading the model"
    return "no live worker: start workers on a node with `worker start`"


def stage_shares(ledger: Ledger, job: str) -> dict[str, float]:
    """Return the share of each stage in the time of a job's last images, largest first; the shares add up to 1.

    Stages of different images overlap, so these are shares of the time spent on images, not of elapsed time. The
    result is empty if no outcome is in Redis: either there is none yet, or all have been moved to S3.
    """
    entries = itertools.islice(Backlog(ledger.connection).recent(job, _LAST_IMAGES), _LAST_IMAGES)
    outcomes = filter(None, (Outcome.read_line(entry.line) for entry in entries))
    return time_shares(outcome.stages for outcome in outcomes)


def time_shares(stages: Iterable[dict[str, float]]) -> dict[str, float]:
    """Return the share of each stage in the total time, given the seconds per stage of several images."""
    seconds_by_stage: Counter[str] = Counter()
    for seconds in stages:
        seconds_by_stage.update(seconds)
    total = seconds_by_stage.total()
    return {stage: seconds / total for stage, seconds in seconds_by_stage.most_common()} if total > 0 else {}


def describe_workers(workers: Iterable[WorkerFacts]) -> str:
    """Return `3 live workers: 2 on 16 cores with birefnet_lite 1024 int8 (2 x 8); 1 on ...`; empty without workers.

    The numbers in brackets are inference streams x threads per stream.
    """
    kinds: Counter[tuple[int, str]] = Counter(
        (
            len(worker.cpus),
            f"{worker.model} {worker.size.short} {worker.precision} "
            f"({worker.streams} x {worker.threads // worker.streams})",
        )
        for worker in workers
    )
    if not kinds:
        return ""
    parts = (f"{count} on {cores} cores with {model}" for (cores, model), count in kinds.most_common())
    return f"{kinds.total()} live worker{'' if kinds.total() == 1 else 's'}: {'; '.join(parts)}"
