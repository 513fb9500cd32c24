"""Write the sentences of a plan: a reason for every decision, and warnings.

The sentences are derived from the numbers of `placement`; nothing is decided here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from worker.contract.settings import PlanSettings
from worker.cpu import cores
from worker.cpu.cores import Share
from worker.cpu.kernel import format_cpu_list
from worker.cpu.memory import process_mib, stream_mib
from worker.cpu.streams import MIB, Division, divide, memory_mib, scales_badly
from worker.cpu.topology import Topology


@dataclass(frozen=True)
class PlanFacts:
    """The numbers that the sentences describe."""

    topology: Topology
    settings: PlanSettings
    available: Sequence[Share]
    """Groups before the quota is applied."""

    granted: Sequence[Share]
    """Groups within the quota."""

    shares: Sequence[Share]
    divisions: Sequence[Division]
    """One per share."""

    set_by: str = "by hand"
    """Origin of the numbers in the settings."""


def reasons(facts: PlanFacts) -> Iterator[str]:
    """Yield a sentence for every decision, in the order of the decisions."""
    yield from _cpus(facts.topology)
    yield _siblings(facts)
    yield _groups(facts.available)
    yield from _quota(facts)
    yield _processes(facts)
    yield from _streams(facts)
    yield _memory(facts)
    yield from facts.topology.notes


def warnings(facts: PlanFacts) -> Iterator[str]:
    """Yield a sentence for everything that reduces speed or could fail."""
    yield from _quota_warnings(facts)
    yield from _idle_cores(facts)
    yield from _wide_streams(facts)
    yield from _memory_warnings(facts)


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: `1 core`, `2 cores`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _total(shares: Sequence[Share]) -> int:
    return sum(len(share.cpus) for share in shares)


def _cpus(topology: Topology) -> Iterator[str]:
    online = frozenset(cpu.id for cpu in topology.cpus)
    yield f"{topology.model_name}: CPUs {format_cpu_list(online)} are online."
    if online <= topology.affinity:
        yield "The affinity mask allows all of them."
    else:
        yield f"The affinity mask allows only CPUs {format_cpu_list(online & topology.affinity)}."
    if topology.cpuset is None or online <= topology.cpuset:
        yield "No cpuset restricts them."
    else:
        yield f"The cpuset in {topology.cpuset_file} allows only CPUs {format_cpu_list(online & topology.cpuset)}."


def _siblings(facts: PlanFacts) -> str:
    usable, physical = len(facts.topology.usable), _total(facts.available)
    if usable == physical:
        return f"{counted(usable, 'usable CPU')}, each on its own physical core."
    return (
        f"{counted(usable, 'usable CPU')} on {counted(physical, 'physical core')}: the lowest usable hardware thread "
        "of each core is used, because the threads of a core share its vector units."
    )


def _groups(available: Sequence[Share]) -> str:
    if len(available) == 1:
        return "All these cores are in one NUMA node and one L3 group."
    nodes = Counter(package for package, _ in {(share.package, share.node) for share in available})
    snc = " (several nodes in one package: sub-NUMA clusters)" if max(nodes.values()) > 1 else ""
    sizes = ", ".join(str(len(share.cpus)) for share in available)
    return f"The cores form {len(available)} groups of {sizes} by NUMA node{snc} and L3; no process spans two of them."


def _quota(facts: PlanFacts) -> Iterator[str]:
    quota, before, after = facts.topology.quota_cpus, _total(facts.available), _total(facts.granted)
    if quota is None:
        yield "No CPU quota is set."
    elif quota >= before:
        yield f"The CPU quota of {quota:g} in {facts.topology.quota_file} is enough for all cores."
    else:
        yield (
            f"The CPU quota of {quota:g} in {facts.topology.quota_file} keeps {counted(after, 'core')} of {before} "
            f"busy, in {counted(len(facts.granted), 'group')}; more threads would only be throttled."
        )


def _processes(facts: PlanFacts) -> str:
    count = f"{len(facts.shares)} {'process' if len(facts.shares) == 1 else 'processes'}"
    if facts.settings.processes is not None:
        return f"{count}: set {facts.set_by}."
    natural = cores.natural_count(facts.granted)
    if len(facts.shares) < natural:
        return f"{count} instead of {natural}: more would not fit into memory."
    if natural > len(facts.granted):
        return f"{count}: one per group, and groups of more than {cores.MAX_CORES} cores are divided evenly."
    return f"{count}: one per group, because the streams of a process share packed weights, but processes do not."


def _streams(facts: PlanFacts) -> Iterator[str]:
    """One sentence per size of core set."""
    sizes = {len(share.cpus): division for share, division in zip(facts.shares, facts.divisions, strict=True)}
    for size, division in sorted(sizes.items()):
        per_stream = division.threads // division.streams
        text = f"{counted(division.streams, 'stream')} x {counted(per_stream, 'thread')} on {counted(size, 'core')}"
        by_hand = [name for name in ("streams", "threads") if getattr(facts.settings, name) is not None]
        unlimited = divide(size, facts.settings)
        if by_hand:
            yield f"{text}: {' and '.join(by_hand)} set {facts.set_by}."
        elif division.streams < unlimited.streams:
            yield f"{text}: {unlimited.streams} streams would not fit into memory."
        else:
            yield f"{text}: {_rule(size, division)}."


def _rule(size: int, division: Division) -> str:
    if size == 1:
        return "a single core runs one image at a time"
    if division.streams == 1:
        return "all cores work on one image"
    if division.streams == division.threads:
        return "as measured, two streams of one thread are faster than one stream of two"
    return "as near to four threads per stream as possible without idle cores"


def _memory(facts: PlanFacts) -> str:
    settings, streams = facts.settings, sum(division.streams for division in facts.divisions)
    return (
        f"Peak memory: {len(facts.divisions)} x {process_mib(settings)} MiB for the processes + "
        f"{streams} x {stream_mib(settings)} MiB for the streams = {memory_mib(facts.divisions, settings)} "
        f"MiB of {facts.topology.memory_bytes // MIB} MiB ({facts.topology.memory_file})."
    )


def _quota_warnings(facts: PlanFacts) -> Iterator[str]:
    quota = facts.topology.quota_cpus
    if quota is None or quota >= _total(facts.available):
        return
    if quota < 1:
        yield (
            f"The CPU quota of {quota:g} is less than one core: the only process will be throttled for "
            f"{1 - quota:.0%} of the time. Raise the limit to at least 1 CPU."
        )
    elif quota != math.floor(quota):
        yield f"No inference thread uses the fraction in the CPU quota of {quota:g}. Set a whole number of CPUs."


def _idle_cores(facts: PlanFacts) -> Iterator[str]:
    idle = _total(facts.granted) - _total(facts.shares)
    if idle:
        yield (
            f"{counted(idle, 'core')} of {_total(facts.granted)} idle: {len(facts.shares)} of {len(facts.granted)} "
            "groups have a process."
        )
    unused = sum(
        len(share.cpus) - division.threads for share, division in zip(facts.shares, facts.divisions, strict=True)
    )
    if unused:
        text = f"{counted(unused, 'core')} without an inference thread"
        yield f"{text}, because of streams or threads set {facts.set_by}."
    sizes = sorted({len(share.cpus) for share in facts.shares})
    if facts.settings.processes is not None and len(sizes) > 1:
        yield f"The processes differ in size ({sizes[0]} to {sizes[-1]} cores), and the small ones are slower."


def _wide_streams(facts: PlanFacts) -> Iterator[str]:
    for threads, streams in sorted({(d.threads, d.streams) for d in facts.divisions if scales_badly(d)}):
        fewer = threads - threads % 4
        idle = f", {counted(threads - fewer, 'core')} idle" if threads > fewer else ""
        yield (
            f"{threads // streams} threads work on one image, which scales badly. Where memory allows, try "
            f"MASKMILL_PLAN__THREADS={fewer} and MASKMILL_PLAN__STREAMS={fewer // 4} ({fewer // 4} x 4 threads{idle})."
        )


def _memory_warnings(facts: PlanFacts) -> Iterator[str]:
    needed, available = memory_mib(facts.divisions, facts.settings), facts.topology.memory_available_bytes // MIB
    if needed > available:
        yield (
            f"The plan may need {needed} MiB, but only {available} MiB are free now: stop other programs on this "
            "machine, or set fewer streams or processes."
        )
