"""Layouts worth trying: divisions of the cores into processes and streams. Pure functions on top of the plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from worker.contract.errors import PlacementError
from worker.contract.settings import PlanSettings
from worker.cpu import cores, placement
from worker.cpu.placement import Plan
from worker.cpu.topology import Topology

MOST_THREADS_PER_STREAM = 8
"""More threads on one image scale badly. On core sets without a finer division, all threads are tried."""

FINER_CUTS = (1, 2, 4)
"""Numbers of processes to try, as multiples of the plan's default."""


@dataclass(frozen=True)
class Layout:
    """One way to divide the machine."""

    processes: int
    streams: int
    """Of each process."""

    plan: Plan

    @property
    def label(self) -> str:
        """The layout in words: `2 processes, 4 streams x 2 threads`."""
        threads = self.plan.core_sets[0].threads // self.streams
        return (
            f"{self.processes} process{'es' if self.processes > 1 else ''}, {self.streams} "
            f"stream{'s' if self.streams > 1 else ''} x {threads} thread{'s' if threads > 1 else ''}"
        )


def candidates(topology: Topology, settings: PlanSettings) -> list[Layout]:
    """Return the layouts to try, the plan's default first; numbers set by hand are kept.

    Raises:
        PlacementError: not even the default fits this machine.
    """
    first = placement.plan(topology, settings)
    own = Layout(len(first.core_sets), first.core_sets[0].streams, first)
    found = {(own.processes, own.streams): own}
    for processes in _process_counts(topology, settings, own.processes):
        for streams in _stream_counts(topology, settings, processes):
            asked = settings.model_copy(update={"processes": processes, "streams": streams})
            try:
                found.setdefault((processes, streams), Layout(processes, streams, placement.plan(topology, asked)))
            except PlacementError:  # too much memory, or more streams than the smallest set has threads
                continue
    return list(found.values())


def _process_counts(topology: Topology, settings: PlanSettings, own: int) -> list[int]:
    if settings.processes is not None:
        return [settings.processes]
    granted = cores.within_quota(cores.groups(topology), topology.quota_cpus)
    total = sum(len(share.cpus) for share in granted)
    return [count for count in dict.fromkeys(own * finer for finer in FINER_CUTS) if count <= total]


def _stream_counts(topology: Topology, settings: PlanSettings, processes: int) -> Iterator[int]:
    if settings.streams is not None:
        yield settings.streams
        return
    granted = cores.within_quota(cores.groups(topology), topology.quota_cpus)
    widest = max(len(share.cpus) for share in cores.cut(granted, processes))
    threads = settings.threads or widest
    divisors = [number for number in range(1, threads + 1) if threads % number == 0]
    few = [number for number in divisors if threads // number <= MOST_THREADS_PER_STREAM]
    yield from few or divisors
