"""Execute the plan of faults and record each victim."""

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

from chaos.faults import ALL_NODES, KILL, Planned
from chaos.nodes import Node
from chaos.watch import Recovery, Watch
from worker.standalone.services import Standalone

_SIGNALS = {
    "sigkill": signal.SIGKILL,
    "sigterm": signal.SIGTERM,
    "sigquit": signal.SIGQUIT,
    "pause": signal.SIGSTOP,
    "hang": signal.SIGSTOP,
}


@dataclass
class Injected:
    """One fault that was injected."""

    at: float
    """Seconds from the start of the run."""

    kind: str
    victim: str
    pid: int | None
    chunks: int
    """Number of chunks that the victim held."""

    kills: bool
    """Whether it ended a process."""

    recovery: Recovery
    paused_seconds: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return the fields for the report."""
        found = {name: value for name, value in asdict(self).items() if name != "recovery"}
        return found | {
            "at": round(self.at, 1),
            "recovered_seconds": self.recovery.seconds and round(self.recovery.seconds, 2),
        }


class Injector:
    """Injects faults from the caller's thread."""

    def __init__(self, nodes: Sequence[Node], services: Standalone, watch: Watch, began: float) -> None:
        self._nodes, self._services, self._watch, self._began = nodes, services, watch, began
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.done: list[Injected] = []
        self.idle = 0
        """Number of faults without a victim, because it was restarting."""

    def inject(self, planned: Planned) -> None:
        """Wait until a fault is due and inject it."""
        self._until(self._began + planned.at)
        role, _, how = planned.kind.partition("-")
        if planned.kind in ALL_NODES:
            self._redis(planned, how)
            return
        victims = self._victims(role)
        if not victims:
            self.idle += 1
            return
        name, process = victims[min(int(planned.pick * len(victims)), len(victims) - 1)]
        snapshot = self._watch.snapshot()
        held_by = name.split("@")[-1] if role == "supervisor" else name
        chunks = {
            chunk for chunk, worker in snapshot.running.items() if worker == held_by or worker.endswith(f"@{held_by}")
        }
        recovery = Recovery(planned.kind, time.monotonic(), chunks=chunks)
        if role == "steward":
            recovery.leaders = snapshot.leaders
        try:
            process.send_signal(_SIGNALS[how])
        except psutil.Error:
            self.idle += 1
            return
        self._record(planned, name, process.pid, recovery)
        if how == "pause":
            self.done[-1].paused_seconds = planned.seconds
            self._after(planned.seconds, lambda: _resume(process))

    def run_due(self) -> None:
        """Undo faults that are due: resume paused processes, start Redis and nodes that have ended."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        for node in self._nodes:
            if not node.running:  # like a service manager
                node.start()

    def settle(self) -> None:
        """Undo all remaining faults."""
        while self._later:
            self._until(self._later[0][0])

    def _until(self, moment: float) -> None:
        while True:
            self.run_due()
            if (left := moment - time.monotonic()) <= 0:
                return
            time.sleep(min(left, 0.1))

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def _victims(self, role: str) -> list[tuple[str, psutil.Process]]:
        found: list[tuple[str, psutil.Process]] = []
        for node in self._nodes:
            if role == "supervisor":
                found += [(f"supervisor@{node.name}", process) for process in node.supervisor()]
            elif role == "steward":
                found += [(f"steward@{node.name}", process) for process in node.stewards()]
            else:
                found += node.model_processes() if role == "model_process" else node.consumers()
        return found

    def _redis(self, planned: Planned, how: str) -> None:
        redis = self._services.redis
        if not redis.running:
            self.idle += 1
            return
        snapshot, pid = self._watch.snapshot(), redis.pid
        recovery = Recovery(planned.kind, time.monotonic(), chunks=set(snapshot.running), images=snapshot.done)
        if how == "restart":
            redis.stop()
        else:
            redis.kill()
        self._record(planned, "redis", pid, recovery)
        self.done[-1].paused_seconds = planned.seconds
        self._after(planned.seconds, redis.start)

    def _record(self, planned: Planned, victim: str, pid: int | None, recovery: Recovery) -> None:
        at = time.monotonic() - self._began
        self.done.append(Injected(at, planned.kind, victim, pid, len(recovery.chunks), planned.kind in KILL, recovery))
        if recovery.chunks or recovery.images is not None or recovery.leaders:
            self._watch.measure(recovery)


def _resume(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.send_signal(signal.SIGCONT)
