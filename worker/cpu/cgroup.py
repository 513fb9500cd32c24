"""Read the control group limits of this process: CPU quota, cpuset and memory, for versions 1 and 2, also mixed.

Called by `topology`. Follows cgroups(7), the kernel's `admin-guide/cgroup-v2.rst` and `scheduler/sched-bwc.rst`: a
limit applies to everything below it, so each file is read from the process's own group up to the mount point, and the
tightest limit applies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from worker.contract.errors import SetupError
from worker.cpu.kernel import Tree

DEFAULT_PERIOD_US = 100_000
"""Default period of the CPU bandwidth controller (kernel, `scheduler/sched-bwc.rst`)."""

_UNLIMITED_V1 = 1 << 60
"""Version 1 writes "no limit" as the largest page-aligned 63-bit number; no machine has an exbibyte."""


@dataclass(frozen=True)
class Limits:
    """The limits of this process; None where there is no limit."""

    quota_cpus: float | None = None
    """CPU time per wall time, in CPUs."""

    quota_file: str = ""
    cpuset: frozenset[int] | None = None
    cpuset_file: str = ""
    memory_bytes: int | None = None
    memory_file: str = ""


@dataclass(frozen=True)
class _Mount:
    point: str
    root: str
    controllers: frozenset[str]
    """Controllers of a version 1 mount; empty for version 2, whose single tree has all of them."""


def read(tree: Tree) -> Limits:
    """Return the tightest limit of each kind.

    Raises:
        SetupError: a limit file has content that the kernel does not write; names the file.
    """
    mounts, own = _mounts(tree), _own_paths(tree)
    if not mounts or not own:
        tree.notes.append("/proc/self/cgroup and /proc/self/mountinfo show no control groups: no limit assumed.")
        return Limits()
    quotas = [(q, f) for folder in _folders(mounts, own, "cpu") for q, f in _quota(tree, folder)]
    cpusets = [(c, f) for folder in _folders(mounts, own, "cpuset") for c, f in _cpuset(tree, folder)]
    memory = [(m, f) for folder in _folders(mounts, own, "memory") for m, f in _memory(tree, folder)]
    quota, quota_file = min(quotas, default=(None, ""))
    bytes_, memory_file = min(memory, default=(None, ""))
    return Limits(
        quota_cpus=quota,
        quota_file=quota_file,
        cpuset=frozenset.intersection(*(cpus for cpus, _ in cpusets)) if cpusets else None,
        cpuset_file=min(cpusets, key=lambda entry: len(entry[0]))[1] if cpusets else "",
        memory_bytes=bytes_,
        memory_file=memory_file,
    )


def _mounts(tree: Tree) -> list[_Mount]:
    """Control group mounts of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    mounts = []
    for line in (tree.text("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if tail[:1] in (["cgroup"], ["cgroup2"]):
            root, point = fields[3:5]
            controllers = frozenset(tail[-1].split(",")) if tail[0] == "cgroup" else frozenset[str]()
            mounts.append(_Mount(_unescape(point), _unescape(root), controllers))
    return mounts


def _unescape(path: str) -> str:
    """Decode the octal escapes of white space and backslashes in /proc/self/mountinfo."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), path)


def _own_paths(tree: Tree) -> dict[str, str]:
    """Controller -> path of the process's own group; the empty controller is version 2."""
    paths = {}
    for line in (tree.text("/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def _folders(mounts: list[_Mount], own: dict[str, str], controller: str) -> Iterator[str]:
    """Yield the folders that may limit `controller` for this process, from its own group up to the mount point.

    Inside a container, /proc/self/cgroup may show the path on the host, of which the mount has only the end or nothing.
    The readers ignore folders that do not exist.
    """
    for mount in mounts:
        if mount.controllers and controller not in mount.controllers:
            continue
        path = own.get(controller if mount.controllers else "", "")
        base = mount.root.rstrip("/")
        inside = path.removeprefix(base) if path == base or path.startswith(f"{base}/") else path
        parts = [part for part in inside.split("/") if part]
        if ".." in parts:  # the group is outside this namespace: only the mount point is readable
            parts = []
        for depth in range(len(parts), -1, -1):
            yield "/".join((mount.point.rstrip("/"), *parts[:depth]))


def _quota(tree: Tree, folder: str) -> Iterator[tuple[float, str]]:
    """Yield the CPU quota in CPUs with its file, if one is set."""
    path = f"{folder}/cpu.max"
    words = (tree.text(path) or "max").split()
    if words[0] != "max":
        yield _ratio(words[0], words[1] if len(words) > 1 else str(DEFAULT_PERIOD_US), path), path
    path = f"{folder}/cpu.cfs_quota_us"
    quota = tree.text(path)
    if quota is not None and not quota.startswith("-"):
        yield _ratio(quota, tree.text(f"{folder}/cpu.cfs_period_us") or str(DEFAULT_PERIOD_US), path), path


def _ratio(quota: str, period: str, path: str) -> float:
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError) as error:
        raise SetupError(f"{path}: quota {quota!r} over period {period!r} is not a CPU limit") from error
    if cpus <= 0:
        raise SetupError(f"{path}: quota {quota!r} over period {period!r} allows no CPU time")
    return cpus


def _cpuset(tree: Tree, folder: str) -> Iterator[tuple[frozenset[int], str]]:
    """Yield the CPUs of the group with their file. An empty file means that the parent group decides."""
    for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
        cpus = tree.cpus(f"{folder}/{name}")
        if cpus:
            yield cpus, f"{folder}/{name}"
            return


def _memory(tree: Tree, folder: str) -> Iterator[tuple[int, str]]:
    """Yield the memory limit in bytes with its file, if one is set."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        path = f"{folder}/{name}"
        limit = None if tree.text(path) in (None, "max") else tree.number(path)
        if limit is not None and limit < _UNLIMITED_V1:
            yield limit, path
