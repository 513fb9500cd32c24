"""Physical cores in groups that nothing may cross, held within the quota, and cut into shares: one share, one process.

First half of `placement`, pure functions on numbers; the sentences about them are in `reasons`.
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
"""Cores of one process unless set by hand. Streams of one process share packed weights, so larger is better, until one
Python process becomes the narrow place: 24 to 32 cores is the range for which one process per node is advised."""


@dataclass(frozen=True)
class Share:
    """Cores of one NUMA node (or sub-NUMA cluster) and one L3 group."""

    package: int
    node: int
    l3: int
    cpus: tuple[int, ...]
    """One CPU for each physical core, ascending."""


def groups(topology: Topology) -> tuple[Share, ...]:
    """Usable physical cores by NUMA node and L3 group, which also keeps packages apart.

    Of the hardware threads of a core the lowest usable one stands for it: OpenVINO takes the lowest CPUs of a mask in
    order, and with one thread per core in the mask it sees a machine without SMT.
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
    """As many cores as the quota keeps busy, in as few groups as possible.

    Whole groups are taken, largest first, while they fit; the rest comes from the smallest group that can hold it.
    """
    total = sum(len(share.cpus) for share in available)
    if quota_cpus is None or quota_cpus >= total:
        return tuple(available)
    wanted = max(1, math.floor(quota_cpus))
    rest = sorted(available, key=lambda share: -len(share.cpus))
    taken: list[Share] = []
    while wanted:
        # `min` and the stable sort keep the lowest-numbered of equal groups.
        holds_all = min((s for s in rest if len(s.cpus) >= wanted), key=lambda s: len(s.cpus), default=None)
        share = holds_all or rest[0]
        rest.remove(share)
        taken.append(replace(share, cpus=share.cpus[:wanted]))
        wanted -= len(taken[-1].cpus)
    return tuple(sorted(taken, key=lambda s: (s.node, s.l3)))


def natural_count(available: Sequence[Share]) -> int:
    """Processes when nothing speaks against it: one for each group, more where a group has over `MAX_CORES` cores."""
    return sum(math.ceil(len(share.cpus) / MAX_CORES) for share in available)


def cut(available: Sequence[Share], processes: int) -> tuple[Share, ...]:
    """Exactly `processes` shares, as even as the groups allow.

    With fewer processes than groups the largest groups are used and the others stay idle. With more, the group with
    the largest shares is cut once more until there are enough; shares of one group differ by at most one core.

    Raises:
        PlacementError: there are not that many cores.
    """
    total = sum(len(share.cpus) for share in available)
    if processes > total:
        raise PlacementError(
            f"{processes} processes asked for, but there are {total} physical cores to share: "
            f"set MASKMILL_PLAN__PROCESSES to 1 to {total}"
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
