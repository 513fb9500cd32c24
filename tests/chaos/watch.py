"""Poll the cluster several times a second: measure recovery times, and sample resources that must stay flat."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import redis

from worker.contract import redis_keys
from worker.contract.ledger.connection import RedisConnection
from worker.contract.settings import RedisSettings

POLL_SECONDS = 0.2
GAUGE_SECONDS = 5.0
FOLLOWER_SECONDS = 8.0
"""Within this time the role of a dead leader expires."""

Chunk = tuple[str, int]
Roles = dict[str, str | None]

_ROLES = ("feed", "books")


@dataclass
class Recovery:
    """What a fault took away, and how long until it returned."""

    kind: str
    began: float
    chunks: set[Chunk] = field(default_factory=set)
    """Held by the victim: recovered when each is complete or waits for a paused job to resume."""

    images: int | None = None
    """Outcomes before the fault: recovered when there are more."""

    leaders: Roles = field(default_factory=dict)
    """Leaders before the fault: recovered when others lead."""

    leader_changed: bool = False
    """Whether a role was seen without its leader or with another."""

    seconds: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """The state of all jobs at one moment."""

    at: float
    outstanding: frozenset[Chunk] = frozenset()
    running: dict[Chunk, str] = field(default_factory=dict)
    left: int = 0
    done: int = 0
    leaders: Roles = field(default_factory=dict)


class Watch:
    """A thread with its own Redis connection."""

    def __init__(self, settings: RedisSettings, processes: Callable[[], dict[str, list[psutil.Process]]]) -> None:
        # Short time-outs, so that a frozen server does not stop the watch.
        quick = settings.model_copy(update={"timeout_seconds": 2.0})
        self._client: Any = RedisConnection(quick, retries=0, client_name="chaos-watch").client
        self._prefix = settings.prefix
        self._processes = processes
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._ended: dict[str, int] = {}
        self._published: dict[Chunk, float] = {}
        self.last = Snapshot(time.monotonic())
        self.recoveries: list[Recovery] = []
        """Those that are not yet measured."""
        self.gauges: list[dict[str, float]] = []
        self.longest: list[tuple[float, Chunk]] = []
        """The ten longest times from publication to the end of a chunk, in seconds."""
        self.error: BaseException | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()
        self._client.close()
        if self.error is not None:
            raise self.error

    def left(self) -> int:
        """Return the number of images without an outcome in unfinished jobs, as of the last snapshot."""
        return self.last.left

    def snapshot(self) -> Snapshot:
        """Take a snapshot; return the last one if Redis does not answer."""
        with self._lock, suppress(redis.RedisError):
            self.last = self._snapshot()
        return self.last

    def measure(self, recovery: Recovery) -> None:
        """Measure the time until a recovery is complete."""
        with self._lock:
            self.recoveries.append(recovery)

    def _snapshot(self) -> Snapshot:
        jobs = sorted(self._client.smembers(redis_keys.active(self._prefix)))
        pipeline = self._client.pipeline(transaction=False)
        for job in jobs:
            keys = redis_keys.job_keys(self._prefix, job)
            pipeline.hmget(keys.record, "total", "status", "ok", "skipped", "failed", "dead", "cancelled")
            pipeline.zrange(keys.outstanding, 0, -1)
            pipeline.hgetall(keys.running)
        for role in _ROLES:
            pipeline.get(redis_keys.leader(self._prefix, role))
        answers = pipeline.execute()
        leaders = dict(zip(_ROLES, answers[-len(_ROLES) :], strict=True))
        outstanding, running, left = set(), {}, 0
        for job, (record, out, run) in zip(jobs, zip(*[iter(answers[: -len(_ROLES)])] * 3, strict=True), strict=True):
            total, _, *counts = record
            done = sum(int(count or 0) for count in counts)
            self._ended[job] = done
            left += int(total or 0) - done
            outstanding |= {(job, int(chunk)) for chunk in out}
            running |= {(job, int(chunk)): worker for chunk, worker in run.items()}
        return Snapshot(time.monotonic(), frozenset(outstanding), running, left, sum(self._ended.values()), leaders)

    def _run(self) -> None:
        gauged = 0.0
        try:
            while not self._end.wait(POLL_SECONDS):
                before = self.last.at
                snapshot = self.snapshot()
                if snapshot.at != before:
                    self._follow(snapshot)
                if time.monotonic() - gauged > GAUGE_SECONDS:
                    gauged = time.monotonic()
                    self._sample_gauges(snapshot)
        except BaseException as error:  # noqa: BLE001 -- raised again by `stop`
            self.error = error

    def _follow(self, snapshot: Snapshot) -> None:
        for chunk in snapshot.outstanding:
            self._published.setdefault(chunk, snapshot.at)
        for chunk in [chunk for chunk in self._published if chunk not in snapshot.outstanding]:
            self.longest.append((snapshot.at - self._published.pop(chunk), chunk))
        self.longest = sorted(self.longest, reverse=True)[:10]
        with self._lock:
            for recovery in self.recoveries:
                if _complete(recovery, snapshot):
                    recovery.seconds = snapshot.at - recovery.began
            # A steward that led nothing leaves nothing to recover.
            followers = [one for one in self.recoveries if one.leaders and not one.leader_changed]
            dropped = {id(one) for one in followers if snapshot.at - one.began > FOLLOWER_SECONDS}
            self.recoveries = [one for one in self.recoveries if one.seconds is None and id(one) not in dropped]

    def _sample_gauges(self, snapshot: Snapshot) -> None:
        found: dict[str, float] = {"at": snapshot.at, "left": snapshot.left, "running": len(snapshot.running)}
        with suppress(redis.RedisError):
            info = self._client.info()
            found |= {"connections": info["connected_clients"], "redis_bytes": info["used_memory"]}
        for role, processes in self._processes().items():
            with suppress(psutil.Error):
                found[f"{role}_count"] = len(processes)
                found[f"{role}_fds"] = max((process.num_fds() for process in processes), default=0)
                found[f"{role}_rss"] = max((process.memory_info().rss for process in processes), default=0)
        self.gauges.append(found)


def _complete(recovery: Recovery, snapshot: Snapshot) -> bool:
    if recovery.images is not None:
        return snapshot.done > recovery.images
    if recovery.leaders:
        recovery.leader_changed = recovery.leader_changed or snapshot.leaders != recovery.leaders
        return recovery.leader_changed and all(snapshot.leaders.values())
    return not recovery.chunks & snapshot.outstanding
