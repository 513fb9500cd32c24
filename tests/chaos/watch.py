"""Looks at the cluster several times a second: how long what a fault hit was away, and what must stay flat."""

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
from worker.contract.settings import RedisSettings

LOOK_SECONDS = 0.2
GAUGE_SECONDS = 5.0
FOLLOWER_SECONDS = 8.0
"""A dead leader's role is vacant by then."""

Chunk = tuple[str, int]
Roles = dict[str, str | None]

_ROLES = ("feed", "books")


@dataclass
class Wait:
    """Something that a fault took away, until it is back."""

    kind: str
    began: float
    chunks: set[Chunk] = field(default_factory=set)
    """Held by the victim: back when each of them is complete, or waits for a paused job to go on."""

    images: int | None = None
    """Outcomes so far: back when there are more."""

    leaders: Roles = field(default_factory=dict)
    """Of the time of the fault: back when another leads."""

    missed: bool = False
    """The role was seen without its leader, or with another."""

    seconds: float | None = None


@dataclass(frozen=True)
class Look:
    """The state of all jobs at one moment."""

    at: float
    outstanding: frozenset[Chunk] = frozenset()
    running: dict[Chunk, str] = field(default_factory=dict)
    left: int = 0
    done: int = 0
    leaders: Roles = field(default_factory=dict)


class Watch:
    """A thread over a connection of its own."""

    def __init__(self, settings: RedisSettings, processes: Callable[[], dict[str, list[psutil.Process]]]) -> None:
        self._client: Any = redis.Redis.from_url(settings.secret_url(), decode_responses=True, socket_timeout=2)
        self._prefix = settings.prefix
        self._processes = processes
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._ended: dict[str, int] = {}
        self._published: dict[Chunk, float] = {}
        self.last = Look(time.monotonic())
        self.waits: list[Wait] = []
        self.gauges: list[dict[str, float]] = []
        self.longest: list[tuple[float, Chunk]] = []
        """Seconds from publication to the end of a chunk, the ten longest."""
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
        """Images of unfinished jobs without an outcome, as last seen."""
        return self.last.left

    def look(self) -> Look:
        """Look now; as last seen if Redis is away."""
        with self._lock, suppress(redis.RedisError):
            self.last = self._look()
        return self.last

    def expect(self, wait: Wait) -> None:
        """Measure until it is back."""
        with self._lock:
            self.waits.append(wait)

    def _look(self) -> Look:
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
        return Look(time.monotonic(), frozenset(outstanding), running, left, sum(self._ended.values()), leaders)

    def _run(self) -> None:
        gauged = 0.0
        try:
            while not self._end.wait(LOOK_SECONDS):
                before = self.last.at
                look = self.look()
                if look.at != before:
                    self._follow(look)
                if time.monotonic() - gauged > GAUGE_SECONDS:
                    gauged = time.monotonic()
                    self._gauge(look)
        except BaseException as error:  # noqa: BLE001 -- raised again by `stop`
            self.error = error

    def _follow(self, look: Look) -> None:
        for chunk in look.outstanding:
            self._published.setdefault(chunk, look.at)
        for chunk in [chunk for chunk in self._published if chunk not in look.outstanding]:
            self.longest.append((look.at - self._published.pop(chunk), chunk))
        self.longest = sorted(self.longest, reverse=True)[:10]
        with self._lock:
            for wait in self.waits:
                if _back(wait, look):
                    wait.seconds = look.at - wait.began
            # The end of a steward that led nothing takes nothing away.
            followers = [wait for wait in self.waits if wait.leaders and not wait.missed]
            gone = {id(wait) for wait in followers if look.at - wait.began > FOLLOWER_SECONDS}
            self.waits = [wait for wait in self.waits if wait.seconds is None and id(wait) not in gone]

    def _gauge(self, look: Look) -> None:
        found: dict[str, float] = {"at": look.at, "left": look.left, "running": len(look.running)}
        with suppress(redis.RedisError):
            info = self._client.info()
            found |= {"connections": info["connected_clients"], "redis_bytes": info["used_memory"]}
        for role, processes in self._processes().items():
            with suppress(psutil.Error):
                found[f"{role}_count"] = len(processes)
                found[f"{role}_fds"] = max((process.num_fds() for process in processes), default=0)
                found[f"{role}_rss"] = max((process.memory_info().rss for process in processes), default=0)
        self.gauges.append(found)


def _back(wait: Wait, look: Look) -> bool:
    if wait.images is not None:
        return look.done > wait.images
    if wait.leaders:
        wait.missed = wait.missed or look.leaders != wait.leaders
        return wait.missed and all(look.leaders.values())
    return not wait.chunks & look.outstanding
