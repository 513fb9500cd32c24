"""Plan a node: which process owns which cores, with how many streams and threads, and why.

    topology ── groups (NUMA node x L3) ── quota ── cut into sets ── streams x threads ── memory ── Plan

`worker plan` shows the plan, `worker start` follows it. Numbers set by hand are checked and take precedence; the others
are chosen here. `cores` cuts the groups, `streams` divides a core set, `reasons` writes the sentences.
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
from worker.cpu.memory import pictures_mib, process_mib, stream_mib
from worker.cpu.streams import MIB, Division, default_streams, divide, memory_mib
from worker.cpu.topology import Topology


@dataclass(frozen=True)
class CoreSet:
    """The cores of one process, with its streams and threads."""

    index: int
    cpus: tuple[int, ...]
    """The affinity mask: one CPU per physical core, ascending."""

    package: int
    node: int
    l3: int
    """L3 group, named by its lowest online CPU."""

    streams: int
    threads: int
    """Inference threads over all streams; a multiple of `streams`."""


@dataclass(frozen=True)
class Plan:
    """Core sets, with a reason for every number."""

    core_sets: tuple[CoreSet, ...]
    memory_needed_mib: int
    memory_usable_mib: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def picture_memory_mib(self) -> int:
        """Return the memory for images in flight of one process, in MiB."""
        return pictures_mib(self.memory_usable_mib, self.memory_needed_mib, len(self.core_sets))

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as JSON types. Keys are stable; new ones may be added.

        `core_sets`: list of `index`, `cpus` (list of CPU ids), `package`, `node`, `l3`, `streams`, `threads`,
        `threads_per_stream`. `memory_needed_mib`, `memory_usable_mib`, `picture_memory_mib`: whole MiB. `reasons`,
        `warnings`: sentences.
        """
        sets = [
            asdict(core_set) | {"cpus": list(core_set.cpus), "threads_per_stream": core_set.threads // core_set.streams}
            for core_set in self.core_sets
        ]
        return {
            "core_sets": sets,
            "memory_needed_mib": self.memory_needed_mib,
            "memory_usable_mib": self.memory_usable_mib,
            "picture_memory_mib": self.picture_memory_mib,
            "reasons": list(self.reasons),
            "warnings": list(self.warnings),
        }

    def as_text(self) -> str:
        """Return the plan as text, one line per core set, reason and warning."""
        lines = [
            f"process {s.index}: CPUs {format_cpu_list(s.cpus)} (package {s.package}, NUMA node {s.node}, L3 of CPU "
            f"{s.l3}), {reasons.counted(s.streams, 'stream')} x {reasons.counted(s.threads // s.streams, 'thread')}"
            for s in self.core_sets
        ]
        lines.append(f"peak memory: {self.memory_needed_mib} MiB of {self.memory_usable_mib} MiB")
        lines.append(f"images in flight of a process: up to {self.picture_memory_mib} MiB")
        lines += [f"- {reason}" for reason in self.reasons]
        lines += [f"! {warning}" for warning in self.warnings]
        return "\n".join(lines)


def plan(topology: Topology, settings: PlanSettings, *, set_by: str = "by hand") -> Plan:
    """Divide the machine into core sets.

    Every core set lies in one NUMA node (or sub-NUMA cluster) and one L3 group, and has one CPU per physical core. Core
    sets are disjoint. Unless set by hand, `streams` x threads per stream = `threads` = cores.

    Args:
        topology: the machine.
        settings: numbers set in it take precedence.
        set_by: origin of these numbers, for the reasons.

    Raises:
        PlacementError: this machine cannot provide the numbers set by hand, or has too little memory for one process;
            names the numbers and what is possible.
    """
    available = cores.groups(topology)
    granted = cores.within_quota(available, topology.quota_cpus)
    shares, divisions = _first_that_fits(granted, settings, topology)
    facts = reasons.PlanFacts(topology, settings, available, granted, shares, divisions, set_by)
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
    """Yield divisions of the machine, best first: to save memory, fewer streams, then fewer processes."""
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
    """Return the best candidate whose peak memory fits.

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
        f"{''.join(lower)}provide more memory, or set the measured needs of the model in "
        "MASKMILL_PLAN__MEMORY_PER_STREAM_MIB and MASKMILL_PLAN__MEMORY_PER_PROCESS_MIB"
    )
