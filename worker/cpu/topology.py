"""Read from the kernel what this process may use: CPUs, caches, NUMA nodes, limits and memory.

A pure parser: `read(root)` reads only files below `root`, so a recorded tree gives the same result as the machine it
was recorded on. `placement` and `isa` work on the `Topology`. File formats: the kernel's
`Documentation/ABI/{stable,testing}/sysfs-devices-system-cpu`, `ABI/stable/sysfs-devices-node` and proc(5).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.contract.errors import PlacementError, SetupError
from worker.cpu import cgroup
from worker.cpu.kernel import Tree, format_cpu_list, parse_cpu_list

_CPU = "/sys/devices/system/cpu"
_NODE = "/sys/devices/system/node"
_L3 = 3


@dataclass(frozen=True)
class LogicalCpu:
    """One online CPU. A core and an L3 group are named by their lowest online CPU, which is unique on the machine.

    The kernel's `core_id` is not unique: it repeats across packages.
    """

    id: int
    package: int
    core: int
    node: int
    """NUMA node; a sub-NUMA cluster appears as a node."""

    l3: int


@dataclass(frozen=True)
class Topology:
    """The machine as this process may use it."""

    cpus: tuple[LogicalCpu, ...]
    """Every online CPU, ascending."""

    usable: frozenset[int]
    """CPU ids that are online, in the affinity mask and in the cpuset. Never empty."""

    affinity: frozenset[int]
    cpuset: frozenset[int] | None
    cpuset_file: str
    quota_cpus: float | None
    """CPU time per wall time that the control groups allow, in CPUs; None without a quota."""

    quota_file: str
    memory_bytes: int
    """Memory that this process may use: the smaller of the machine's memory and the control group's limit. It does not
    depend on other running programs, so that a plan stays the same."""

    memory_file: str
    memory_available_bytes: int
    """The kernel's estimate of the memory available now without swapping."""

    flags: frozenset[str]
    model_name: str
    notes: tuple[str, ...]
    """Sentences about what is missing in the kernel's files and what was assumed instead."""


def read(root: Path = Path("/")) -> Topology:
    """Read the machine whose kernel files lie below `root`.

    Raises:
        SetupError: an essential file is missing, or a file has content that the kernel does not write; names the file.
        PlacementError: online CPUs, affinity mask and cpuset have no CPU in common.
    """
    tree = Tree(root)
    online = _online(tree)
    affinity = _affinity(tree, online)
    limits = cgroup.read(tree)
    usable = online & affinity & (online if limits.cpuset is None else limits.cpuset)
    if not usable:
        cpuset = f", {limits.cpuset_file} has {format_cpu_list(limits.cpuset or ())}" if limits.cpuset_file else ""
        raise PlacementError(
            f"no usable CPU: {format_cpu_list(online)} are online, the affinity mask in /proc/self/status has "
            f"{format_cpu_list(affinity)}{cpuset}; start on CPUs that all of these allow (taskset -c, the cpuset)"
        )
    total, available = _memory(tree)
    limited = limits.memory_bytes is not None and limits.memory_bytes < total
    model_name, flags = _processor(tree)
    cpus = _logical_cpus(tree, online, virtual="hypervisor" in flags)
    return Topology(
        cpus=cpus,
        usable=usable,
        affinity=affinity,
        cpuset=limits.cpuset,
        cpuset_file=limits.cpuset_file,
        quota_cpus=limits.quota_cpus,
        quota_file=limits.quota_file,
        memory_bytes=limits.memory_bytes if limited and limits.memory_bytes is not None else total,
        memory_file=limits.memory_file if limited else "/proc/meminfo",
        memory_available_bytes=available,
        flags=flags,
        model_name=model_name,
        notes=tuple(tree.notes),
    )


def _online(tree: Tree) -> frozenset[int]:
    for name in ("online", "possible"):
        cpus = tree.cpus(f"{_CPU}/{name}")
        if cpus:
            if name != "online":
                tree.notes.append(f"{_CPU}/online is missing: all CPUs of {_CPU}/{name} are assumed online.")
            return cpus
    raise SetupError(f"{_CPU}/online is missing or empty: check that /sys is mounted")


def _affinity(tree: Tree, online: frozenset[int]) -> frozenset[int]:
    path = "/proc/self/status"
    for key, value in _pairs(tree.text(path) or ""):
        if key == "Cpus_allowed_list":
            return parse_cpu_list(value, path)
    tree.notes.append(f"{path} has no Cpus_allowed_list: no affinity mask is assumed.")
    return online


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the lines `key: value` of a /proc file."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            yield key.strip(), value.strip()


class _Assumptions:
    """Collects the CPUs for which a fact is missing, to write one sentence per fact instead of one per CPU."""

    def __init__(self) -> None:
        self._cpus: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, sentence: str, cpu: int) -> None:
        self._cpus[sentence].append(cpu)

    def notes(self) -> list[str]:
        return [f"CPUs {format_cpu_list(cpus)}: {sentence}" for sentence, cpus in self._cpus.items()]


def _logical_cpus(tree: Tree, online: frozenset[int], *, virtual: bool) -> tuple[LogicalCpu, ...]:
    assumed = _Assumptions()
    packages = {cpu: _package(tree, cpu, assumed) for cpu in online}
    nodes = _nodes(tree, online, assumed)
    cores = _cores(tree, packages, assumed)
    l3 = _l3_groups(tree, packages, nodes, assumed)
    if virtual and len(set(cores.values())) == len(set(l3.values())) > len(set(nodes.values())):
        tree.notes.append(
            "This virtual machine describes a separate L3 cache for every core, which says nothing about the hardware: "
            "one L3 per NUMA node assumed."
        )
        l3 = {cpu: min(other for other in online if nodes[other] == nodes[cpu]) for cpu in online}
    tree.notes.extend(assumed.notes())
    tree.notes.extend(_oddities(tree, online))
    return tuple(LogicalCpu(cpu, packages[cpu], cores[cpu], nodes[cpu], l3[cpu]) for cpu in sorted(online))


def _package(tree: Tree, cpu: int, assumed: _Assumptions) -> int:
    package = tree.number(f"{_CPU}/cpu{cpu}/topology/physical_package_id")
    if package is None:
        assumed.add("topology/physical_package_id is missing, one package assumed.", cpu)
    return package or 0


def _nodes(tree: Tree, online: frozenset[int], assumed: _Assumptions) -> dict[int, int]:
    """NUMA node of every CPU. Nodes without CPUs (CXL or high-bandwidth memory) are ignored."""
    nodes: dict[int, int] = {}
    for node in tree.numbered(_NODE, "node"):
        nodes.update(dict.fromkeys(tree.cpus(f"{_NODE}/node{node}/cpulist") or (), node))
    for cpu in sorted(online - nodes.keys()):
        assumed.add(f"no {_NODE}/node*/cpulist contains them, NUMA node 0 assumed.", cpu)
        nodes[cpu] = 0
    return nodes


def _cores(tree: Tree, packages: dict[int, int], assumed: _Assumptions) -> dict[int, int]:
    """Physical core of every CPU, named by its lowest online CPU; from sibling list, else package, die and core id."""
    cores: dict[int, int] = {}
    by_ids: dict[tuple[int, int | None, int], int] = {}
    for cpu in sorted(packages):
        folder = f"{_CPU}/cpu{cpu}/topology"
        # The first name exists since kernel 5.3; the second is the older name of the same list.
        siblings = tree.cpus(f"{folder}/core_cpus_list") or tree.cpus(f"{folder}/thread_siblings_list")
        core_id = tree.number(f"{folder}/core_id")
        if siblings:
            cores[cpu] = min((siblings & packages.keys()) | {cpu})
        elif core_id is not None:
            cores[cpu] = by_ids.setdefault((packages[cpu], tree.number(f"{folder}/die_id"), core_id), cpu)
        else:
            assumed.add("no sibling list and no core_id, a separate core assumed for each.", cpu)
            cores[cpu] = cpu
    return cores


def _l3_groups(tree: Tree, packages: dict[int, int], nodes: dict[int, int], assumed: _Assumptions) -> dict[int, int]:
    """L3 group of every CPU, named by its lowest online CPU."""
    groups: dict[int, int] = {}
    stand_ins: dict[tuple[int, int], int] = {}
    for cpu in sorted(packages):
        shared = _l3_cpus(tree, cpu)
        if shared:
            groups[cpu] = min((shared & packages.keys()) | {cpu})
        else:
            assumed.add("no cache of level 3 is described, one L3 per package and NUMA node assumed.", cpu)
            groups[cpu] = stand_ins.setdefault((packages[cpu], nodes[cpu]), cpu)
    return groups


def _l3_cpus(tree: Tree, cpu: int) -> frozenset[int] | None:
    folder = f"{_CPU}/cpu{cpu}/cache"
    for index in tree.numbered(folder, "index"):
        if tree.number(f"{folder}/index{index}/level") == _L3:
            return tree.cpus(f"{folder}/index{index}/shared_cpu_list")
    return None


def _oddities(tree: Tree, online: frozenset[int]) -> Iterator[str]:
    """Yield facts that are valid but that a reader of the plan should know."""
    # Linux has this list on CPUs with two kinds of cores (perf's PMU of the small ones).
    small = (tree.cpus("/sys/devices/cpu_atom/cpus") or frozenset()) & online
    if small:
        yield f"CPUs {format_cpu_list(small)} are efficiency cores, which are planned like the others."
    written = format_cpu_list(online).split(",")
    if any("-" not in item for item in written) and len(written) > 1:
        yield (
            f"The online list {','.join(written)} has single CPUs in it, which OpenVINO may miss: compare the number "
            "of inference threads with the plan."
        )


def _processor(tree: Tree) -> tuple[str, frozenset[str]]:
    """Model name and feature flags of the first processor (`Features` on Arm)."""
    facts: dict[str, str] = {}
    for key, value in _pairs(tree.text("/proc/cpuinfo") or ""):
        if key == "processor" and "processor" in facts:
            break
        facts.setdefault(key, value)
    flags = frozenset((facts.get("flags") or facts.get("Features") or "").split())
    if not flags:
        tree.notes.append("/proc/cpuinfo has no flags: no vector instructions assumed.")
    return facts.get("model name", "unknown CPU"), flags


def _memory(tree: Tree) -> tuple[int, int]:
    """Total and available memory in bytes."""
    path = "/proc/meminfo"
    facts = dict(_pairs(tree.text(path) or ""))
    total = _kibibytes(facts.get("MemTotal"), path)
    if total is None:
        raise SetupError(f"{path} has no MemTotal: check that /proc is mounted")
    available = _kibibytes(facts.get("MemAvailable"), path)
    if available is None:
        tree.notes.append(f"{path} has no MemAvailable: all memory is assumed available.")
    return total, total if available is None else available


def _kibibytes(value: str | None, path: str) -> int | None:
    """Bytes of a value such as `24682416 kB`; a kB of the kernel has 1024 bytes."""
    if value is None:
        return None
    number = value.removesuffix("kB").strip()
    if not number.isdecimal():
        raise SetupError(f"{path}: {value!r} is not an amount of memory in kB")
    return int(number) * 1024
