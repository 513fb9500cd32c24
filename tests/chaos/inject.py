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

from chaos.cluster import Cluster
from chaos.faults import KILL, Planned
from chaos.nodes import Node
from chaos.watch import Recovery, Watch
from support.fault_injection import Faults

_BEHIND_SECONDS = 2.0
"""How long the replica misses all writes before the primary is killed."""

_FARTHEST_CLOCK = 15.0

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

    @property
    def moment(self) -> float:
        """When it began (`time.monotonic`)."""
        return self.recovery.began

    @property
    def ends(self) -> float:
        """When the victim goes on, if it does."""
        return self.moment + (self.paused_seconds or 0.0)

    def facts(self) -> dict[str, Any]:
        """Return the fields for the report."""
        found = {name: value for name, value in asdict(self).items() if name != "recovery"}
        return found | {
            "at": round(self.at, 1),
            "recovered_seconds": self.recovery.seconds and round(self.recovery.seconds, 2),
        }


class Injector:
    """Injects faults from the caller's thread."""

    def __init__(
        self, nodes: Sequence[Node], cluster: Cluster, watch: Watch, began: float, injected: Faults | None = None
    ) -> None:
        """Do nothing yet; `injected` holds the faults inside the processes of the nodes, if there are some."""
        self._nodes, self._cluster, self._watch, self._began = nodes, cluster, watch, began
        self._injected = injected
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._away: set[str] = set()
        """Names of the nodes without a network."""
        self.done: list[Injected] = []
        self.idle = 0
        """Number of faults without a victim, because it was restarting."""

    def inject(self, planned: Planned) -> None:
        """Wait until a fault is due and inject it."""
        self._until(self._began + planned.at)
        role, _, how = planned.kind.partition("-")
        others = {
            "redis": self._redis,
            "failover": self._failover,
            "s3": self._s3,
            "network": self._cut,
            "clock": self._step,
        }
        if role in others:
            others[role](planned, how)
            return
        if planned.kind == "consumer-gap":
            self._let_one_lose_its_message(planned)
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

    def _let_one_lose_its_message(self, planned: Planned) -> None:
        """Let the next consumer die that takes a message, before anything says that it has it."""
        if self._injected is None:
            self.idle += 1
            return
        self._injected.arm("lose")
        self._record(planned, "the next consumer", None, Recovery(planned.kind, time.monotonic()))

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
        redis = self._cluster.services.redis
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

    def _failover(self, planned: Planned, how: str) -> None:
        servers = self._cluster.sentinels
        if servers is None or not servers.whole():
            self.idle += 1
            return
        snapshot, pid = self._watch.snapshot(), servers.primary().pid
        recovery = Recovery(planned.kind, time.monotonic(), chunks=set(snapshot.running), images=snapshot.done)
        if how == "behind":
            with servers.deaf_replica():
                time.sleep(_BEHIND_SECONDS)
                recovery.began = time.monotonic()
                servers.fail_over("kill")
        else:
            servers.fail_over(how)
        self._record(planned, "redis", pid, recovery)
        self._after(planned.seconds, servers.heal)

    def _s3(self, planned: Planned, how: str) -> None:
        snapshot = self._watch.snapshot()
        recovery = Recovery(planned.kind, time.monotonic(), images=snapshot.done)
        self._cluster.s3_log.make_trouble(how, planned.seconds)
        self._record(planned, "s3", None, recovery)

    def _step(self, planned: Planned, how: str) -> None:
        """Step a clock to somewhere between 15 s behind and 15 s ahead of the machine's."""
        offset = _FARTHEST_CLOCK * (2 * planned.pick - 1)
        servers = self._cluster.sentinels
        if how == "redis" and servers is not None and servers.whole():
            victim, clock = "redis", servers.primary().clock
        else:
            node = self._nodes[int(planned.seconds * 1000) % len(self._nodes)]
            victim, clock = node.name, node.clock
        if clock is None or (how == "redis" and clock.library() is None):
            self.idle += 1
            return
        clock.set(offset)
        self._record(planned, f"{victim} {offset:+.1f} s", None, Recovery(planned.kind, time.monotonic()))

    def _cut(self, planned: Planned, _how: str) -> None:
        network, node = self._cluster.network, self._nodes[int(planned.pick * len(self._nodes)) % len(self._nodes)]
        if network is None or node.name in self._away:
            self.idle += 1
            return
        running = self._watch.snapshot().running
        chunks = {chunk for chunk, worker in running.items() if worker.endswith(f"@{node.name}")}
        self._away.add(node.name)
        network.cut(node.name)
        self._record(planned, node.name, None, Recovery(planned.kind, time.monotonic(), chunks=chunks))
        self.done[-1].paused_seconds = planned.seconds
        self._after(planned.seconds, lambda: self._heal(node.name))

    def _heal(self, name: str) -> None:
        if self._cluster.network is not None:
            self._cluster.network.heal(name)
        self._away.discard(name)

    def _record(self, planned: Planned, victim: str, pid: int | None, recovery: Recovery) -> None:
        at = time.monotonic() - self._began
        self.done.append(Injected(at, planned.kind, victim, pid, len(recovery.chunks), planned.kind in KILL, recovery))
        if recovery.chunks or recovery.images is not None or recovery.leaders:
            self._watch.measure(recovery)


def _resume(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.send_signal(signal.SIGCONT)
