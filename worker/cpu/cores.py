"""Group the physical cores, apply the CPU quota, and cut the groups into shares, one per process.

A share never spans two groups. This is the first half of `placement`: pure functions on numbers, whose text is in
`reasons`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from worker.contract.errors import PlacementError
from worker.cpu.topology import LogicalCpu, Topology

MAX_CORES = 32
"""Most cores of one process, unless set by hand. Streams of one process share packed weights, so larger processes are
better until the Python process becomes the bottleneck: one process per node is advised up to 24 to 32 cores."""


@dataclass(frozen=True)
class Share:
    """Cores of one NUMA node (or sub-NUMA cluster) and one L3 group."""

    package: int
    node: int
    l3: int
    cpus: tuple[int, ...]
    """One CPU per physical core, ascending."""


def groups(topology: Topology) -> tuple[Share, ...]:
    """Group the usable physical cores by NUMA node and L3 group, which also separates packages.

    The lowest usable hardware thread represents its core: OpenVINO takes the lowest CPUs of a mask in order, and with
    one thread per core in the mask it sees a machine without SMT.
    """
    found: defaultdict[tuple[int, int], list[LogicalCpu]] = defaultdict(list)
    taken: set[int] = set()
    for cpu in topology.cpus:
        if cpu.id in topology.usable and cpu.core not in taken:
            taken.add(cpu.core)
            found[cpu.node, cpu.l3].append(cpu)
    return tuple(
        Share(members[0].package, node, l3, tuple(cpu.id for cpu in members))
        for (node, l3), members in sorted(found.items())
    )


def within_quota(available: Sequence[Share], quota_cpus: float | None) -> tuple[Share, ...]:
    """Return as many cores as the quota keeps busy, in as few groups as possible.

    Takes whole groups, largest first, while they fit, and the rest from the smallest group that is large enough.
    """
    total = sum(len(share.cpus) for share in available)
    if quota_cpus is None or quota_cpus >= total:
        return tuple(available)
    needed = max(1, math.floor(quota_cpus))
    rest = sorted(available, key=lambda share: -len(share.cpus))
    taken: list[Share] = []
    while needed:
        # `min` and the stable sort prefer the lowest-numbered of equal groups.
        holds_all = min((s for s in rest if len(s.cpus) >= needed), key=lambda s: len(s.cpus), default=None)
        share = holds_all or rest[0]
        rest.remove(share)
        taken.append(replace(share, cpus=share.cpus[:needed]))
        needed -= len(taken[-1].cpus)
    return tuple(sorted(taken, key=lambda s: (s.node, s.l3)))


def natural_count(available: Sequence[Share]) -> int:
    """Return the default number of processes: one per group, and more for a group of over `MAX_CORES` cores."""
    return sum(math.ceil(len(share.cpus) / MAX_CORES) for share in available)


def cut(available: Sequence[Share], processes: int) -> tuple[Share, ...]:
    """Cut the groups into exactly `processes` shares, as even as possible.

    With fewer processes than groups, only the largest groups are used. With more, the group with the largest shares is
    cut into one more share, repeatedly. Shares of one group differ by at most one core.

    Raises:
        PlacementError: there are fewer cores than processes.
    """
    total = sum(len(share.cpus) for share in available)
    if processes > total:
        raise PlacementError(
            f"{processes} processes requested, but there are {total} physical cores: set MASKMILL_PLAN__PROCESSES to 1 "
            f"to {total}"
        )
    largest_first = sorted(available, key=lambda share: -len(share.cpus))
    used = [share for share in available if share in largest_first[:processes]]
    pieces = [1] * len(used)
    for _ in range(processes - len(used)):
        most = max(range(len(used)), key=lambda i: math.ceil(len(used[i].cpus) / pieces[i]))
        pieces[most] += 1
    return tuple(piece for share, count in zip(used, pieces, strict=True) for piece in _even(share, count))


def _even(share: Share, count: int) -> list[Share]:
    size, longer = divmod(len(share.cpus), count)
    ends = [size * i + min(i, longer) for i in range(count + 1)]
    return [replace(share, cpus=share.cpus[a:b]) for a, b in pairwise(ends)]
