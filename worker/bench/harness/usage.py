"""CPU time of processes and of the kinds of threads in them, from /proc.

In a model process Python's threads have names of ours (`worker.telemetry.timing.name_thread`) or are the main thread;
the rest are OpenVINO's. So what inference costs is told from what is around it, without a profiler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

_PROC = Path("/proc")
_NANO = 1e-9
_OWN_THREADS = ("image", "prefetcher")


@dataclass(frozen=True)
class Usage:
    """CPU seconds so far."""

    inference: float = 0.0
    """Threads of OpenVINO in model processes."""

    images: float = 0.0
    """Image threads: fetch, decode, resize, render, store."""

    rest: float = 0.0
    """Main threads, parents of model processes, supervisor, steward."""

    services: float = 0.0
    """Redis and S3 server, which run on other machines in production."""

    @property
    def workers(self) -> float:
        """All but the services."""
        return self.inference + self.images + self.rest

    @property
    def total(self) -> float:
        """Everything."""
        return self.workers + self.services

    def __sub__(self, other: Self) -> Usage:
        return Usage(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def __add__(self, other: Self) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def usage(supervisor: int | None, services: Iterable[int]) -> Usage:
    """Of everything below a supervisor, and of services with their children."""
    found = Usage()
    for pid in tree(supervisor) if supervisor else ():
        found += _of_worker(pid)
    spent = sum(_thread_seconds(task) for top in services for pid in tree(top) for task in _tasks(pid))
    return found + Usage(services=spent)


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        text = _read(stat)
        if text:
            parent = int(text.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def model_processes(supervisor: int) -> list[int]:
    """Those that hold a network: they have image threads."""
    return [pid for pid in tree(supervisor) if any(name.startswith("image") for name in _names(pid).values())]


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident memory of a process now and at its peak (`VmRSS`, `VmHWM`)."""
    values = dict.fromkeys(("VmRSS", "VmHWM"), 0.0)
    for line in _read(_PROC / str(pid) / "status").splitlines():
        name, _, rest = line.partition(":")
        if name in values:
            values[name] = int(rest.split()[0]) / 1024
    return values["VmRSS"], values["VmHWM"]


def handles(pid: int) -> int:
    """Open file descriptors of a process."""
    try:
        return len(list((_PROC / str(pid) / "fd").iterdir()))
    except OSError:
        return 0


def threads(pid: int) -> int:
    """Threads of a process."""
    return len(_tasks(pid))


def _of_worker(pid: int) -> Usage:
    names = _names(pid)
    is_model = any(name.startswith("image") for name in names.values())
    spent = {"images": 0.0, "inference": 0.0, "rest": 0.0}
    for task in _tasks(pid):
        name = names.get(int(task.name), "")
        if name.startswith("image"):
            kind = "images"
        elif is_model and int(task.name) != pid and not name.startswith(_OWN_THREADS):
            kind = "inference"
        else:
            kind = "rest"
        spent[kind] += _thread_seconds(task)
    return Usage(**spent)


def _names(pid: int) -> dict[int, str]:
    return {int(task.name): _read(task / "comm").strip() for task in _tasks(pid)}


def _tasks(pid: int) -> list[Path]:
    return list((_PROC / str(pid) / "task").glob("[0-9]*"))


def _thread_seconds(task: Path) -> float:
    """Time on a CPU in nanoseconds is the first number of `schedstat` (kernel: sched-stats.rst)."""
    words = _read(task / "schedstat").split()
    return int(words[0]) * _NANO if words else 0.0


def _read(path: Path) -> str:
    """Empty for a process that has ended meanwhile."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
