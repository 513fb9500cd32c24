"""The plan of a node: which process owns which cores, with how many streams and threads, and why.

    topology ── groups (NUMA node x L3) ── quota ── cut into sets ── streams x threads ── memory ── Plan

`worker plan` shows the plan, `worker start` follows it. Numbers set by hand win and are checked; the others are chosen
here. The cutting is in `cores`, the division into streams in `streams`, the sentences in `reasons`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from worker.contract.errors import PlacementError
from worker.contract.settings import PlanSettings
from worker.cpu import cores, reasons
from worker.cpu.cores import Share
from worker.cpu.kernel import format_cpu_list
from worker.cpu.memory import process_mib, stream_mib
from worker.cpu.streams import MIB, Division, default_streams, divide, memory_mib
from worker.cpu.topology import Topology


@dataclass(frozen=True)
class CoreSet:
    """What one process owns."""

    index: int
    cpus: tuple[int, ...]
    """One CPU for each physical core, ascending: the affinity mask."""

    package: int
    node: int
    l3: int
    """Lowest online CPU of the L3 group."""

    streams: int
    threads: int
    """Inference threads over all streams; a multiple of `streams`."""


@dataclass(frozen=True)
class Plan:
    """Core sets with the reasons for every number."""

    core_sets: tuple[CoreSet, ...]
    memory_needed_mib: int
    memory_usable_mib: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The plan for machines (JSON types only). Keys are stable; new ones may be added.

        `core_sets`: list of `index`, `cpus` (list of CPU ids), `package`, `node`, `l3`, `streams`, `threads`,
        `threads_per_stream`. `memory_needed_mib`, `memory_usable_mib`: whole MiB. `reasons`, `warnings`: sentences.
        """
        sets = [
            asdict(core_set) | {"cpus": list(core_set.cpus), "threads_per_stream": core_set.threads // core_set.streams}
            for core_set in self.core_sets
        ]
        return {
            "core_sets": sets,
            "memory_needed_mib": self.memory_needed_mib,
            "memory_usable_mib": self.memory_usable_mib,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
        }

    def as_text(self) -> str:
        """The plan in words, one line for each core set, reason and warning."""
        lines = [
            f"process {s.index}: CPUs {format_cpu_list(s.cpus)} (package {s.package}, NUMA node {s.node}, L3 of CPU "
            f"{s.l3}), {reasons.counted(s.streams, 'stream')} x {reasons.counted(s.threads // s.streams, 'thread')}"
            for s in self.core_sets
        ]
        lines.append(f"memory: {self.memory_needed_mib} MiB of {self.memory_usable_mib} MiB at the peak")
        lines += [f"- {reason}" for reason in self.reasons]
        lines += [f"! {warning}" for warning in self.warnings]
        return "\n".join(lines)


def plan(topology: Topology, settings: PlanSettings, *, set_by: str = "by hand") -> Plan:
    """Divide the machine.

    Every core set lies in one NUMA node (or sub-NUMA cluster) and one L3 group and has one CPU of each physical core;
    sets are disjoint; `streams` x threads per stream = `threads` = cores, unless set by hand.

    Args:
        topology: the machine.
        settings: numbers set in it win.
        set_by: who set them, for the reasons.

    Raises:
        PlacementError: numbers set by hand that this machine cannot give, or too little memory for one process; names
            the numbers and what is possible.
    """
    available = cores.groups(topology)
    granted = cores.within_quota(available, topology.quota_cpus)
    shares, divisions = _first_that_fits(granted, settings, topology)
    facts = reasons.Facts(topology, settings, available, granted, shares, divisions, set_by)
    return Plan(
        core_sets=tuple(
            CoreSet(index, share.cpus, share.package, share.node, share.l3, division.streams, division.threads)
            for index, (share, division) in enumerate(zip(shares, divisions, strict=True))
        ),
        memory_needed_mib=memory_mib(divisions, settings),
        memory_usable_mib=topology.memory_bytes // MIB,
        reasons=tuple(reasons.reasons(facts)),
        warnings=tuple(reasons.warnings(facts)),
    )


def _candidates(granted: Sequence[Share], settings: PlanSettings) -> Iterator[tuple[tuple[Share, ...], list[Division]]]:
    """Ways to divide the machine, best first: for want of memory fewer streams, then fewer processes."""
    counts = [settings.processes] if settings.processes else range(cores.natural_count(granted), 0, -1)
    for count in counts:
        shares = cores.cut(granted, count)
        sizes = [len(share.cpus) for share in shares]
        widest = max(default_streams(settings.threads or size) for size in sizes)
        for limit in [widest] if settings.streams else range(widest, 0, -1):
            yield shares, [divide(size, settings, limit) for size in sizes]


def _first_that_fits(
    granted: Sequence[Share], settings: PlanSettings, topology: Topology
) -> tuple[tuple[Share, ...], list[Division]]:
    """The best candidate whose peak memory fits.

    Raises:
        PlacementError: none fits, or the numbers set by hand are impossible.
    """
    usable = topology.memory_bytes // MIB
    least = (0, 0, 0)
    for shares, divisions in _candidates(granted, settings):
        needed = memory_mib(divisions, settings)
        if needed <= usable:
            return shares, divisions
        least = (needed, len(divisions), sum(division.streams for division in divisions))
    needed, processes, streams = least
    raise PlacementError(
        f"{processes} processes x {process_mib(settings)} MiB + {streams} streams x "
        f"{stream_mib(settings)} MiB = {needed} MiB do not fit into the {usable} MiB of "
        f"{topology.memory_file}: {_remedy(settings)}"
    )


def _remedy(settings: PlanSettings) -> str:
    by_hand = [name for name in ("processes", "streams") if getattr(settings, name) is not None]
    lower = [f"lower or unset MASKMILL_PLAN__{name.upper()}, " for name in by_hand]
    return (
        f"{''.join(lower)}give it more memory, or state what the model really needs in "
        "MASKMILL_PLAN__MEMORY_PER_STREAM_MIB and MASKMILL_PLAN__MEMORY_PER_PROCESS_MIB"
    )
