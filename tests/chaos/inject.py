"""Does to the cluster what the plan says, and notes what it hit."""

from __future__ import annotations

import heapq
import itertools
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from chaos.faults import EVERYONE, KILL, Planned
from chaos.nodes import Node
from chaos.watch import Wait, Watch
from worker.standalone.services import Standalone

_SIGNALS = {
    "sigkill": signal.SIGKILL,
    "sigterm": signal.SIGTERM,
    "sigquit": signal.SIGQUIT,
    "pause": signal.SIGSTOP,
    "hang": signal.SIGSTOP,
}


@dataclass
class Done:
    """One fault as it happened."""

    at: float
    """Seconds from the start of the run."""

    kind: str
    victim: str
    pid: int | None
    chunks: int
    """Held by the victim at that moment."""

    kills: bool
    """Whether a process ended by it."""

    wait: Wait
    paused_seconds: float | None = None

    def facts(self) -> dict[str, Any]:
        """For the report."""
        found = {name: value for name, value in asdict(self).items() if name != "wait"}
        return found | {"at": round(self.at, 1), "recovered_seconds": self.wait.seconds and round(self.wait.seconds, 2)}


class Injector:
    """Runs in the caller's thread."""

    def __init__(self, nodes: Sequence[Node], services: Standalone, watch: Watch, began: float) -> None:
        self._nodes, self._services, self._watch, self._began = nodes, services, watch, began
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.done: list[Done] = []
        self.idle = 0
        """Faults of the plan that found no victim: it was being restarted."""

    def inject(self, planned: Planned) -> None:
        """Wait for its time and do it."""
        self._until(self._began + planned.at)
        who, _, how = planned.kind.partition("-")
        if planned.kind in EVERYONE:
            self._redis(planned, how)
            return
        victims = self._victims(who)
        if not victims:
            self.idle += 1
            return
        name, process = victims[min(int(planned.pick * len(victims)), len(victims) - 1)]
        look = self._watch.look()
        mine = name.split("@")[-1] if who == "supervisor" else name
        chunks = {chunk for chunk, worker in look.running.items() if worker == mine or worker.endswith(f"@{mine}")}
        wait = Wait(planned.kind, time.monotonic(), chunks=chunks)
        if who == "steward":
            wait.leaders = look.leaders
        try:
            process.send_signal(_SIGNALS[how])
        except psutil.Error:
            self.idle += 1
            return
        self._note(planned, name, process.pid, wait)
        if how == "pause":
            self.done[-1].paused_seconds = planned.seconds
            self._after(planned.seconds, lambda: _go_on(process))

    def tend(self) -> None:
        """Do what is due: start what a fault ended, let go on what it paused."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        for node in self._nodes:
            if not node.running:  # as a service manager would
                node.start()

    def settle(self) -> None:
        """Undo what is still to be undone."""
        while self._later:
            self._until(self._later[0][0])

    def _until(self, moment: float) -> None:
        while True:
            self.tend()
            if (left := moment - time.monotonic()) <= 0:
                return
            time.sleep(min(left, 0.1))

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def _victims(self, who: str) -> list[tuple[str, psutil.Process]]:
        found: list[tuple[str, psutil.Process]] = []
        for node in self._nodes:
            if who == "supervisor":
                found += [(f"supervisor@{node.name}", process) for process in node.supervisor()]
            elif who == "steward":
                found += [(f"steward@{node.name}", process) for process in node.stewards()]
            else:
                found += node.children() if who == "child" else node.parents()
        return found

    def _redis(self, planned: Planned, how: str) -> None:
        redis = self._services.redis
        if not redis.running:
            self.idle += 1
            return
        look, pid = self._watch.look(), redis.pid
        wait = Wait(planned.kind, time.monotonic(), chunks=set(look.running), images=look.done)
        if how == "restart":
            redis.stop()
        else:
            redis.kill()
        self._note(planned, "redis", pid, wait)
        self.done[-1].paused_seconds = planned.seconds
        self._after(planned.seconds, redis.start)

    def _note(self, planned: Planned, victim: str, pid: int | None, wait: Wait) -> None:
        at = time.monotonic() - self._began
        self.done.append(Done(at, planned.kind, victim, pid, len(wait.chunks), planned.kind in KILL, wait))
        if wait.chunks or wait.images is not None or wait.leaders:
            self._watch.expect(wait)


def _go_on(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.send_signal(signal.SIGCONT)
