"""CPU time of processes and of the kinds of threads in them, from /proc.

In a model process, Python's threads have names (`worker.telemetry.timing.name_thread`) or are the main thread; all
other threads are OpenVINO's. So the cost of inference can be told apart from the cost around it without a profiler.
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
        """CPU seconds of all worker processes, services excluded."""
        return self.inference + self.images + self.rest

    @property
    def total(self) -> float:
        """CPU seconds of all worker processes and services."""
        return self.workers + self.services

    def __sub__(self, other: Self) -> Usage:
        return Usage(*(getattr(self, f.name) - getattr(other, f.name) for f in fields(self)))

    def __add__(self, other: Self) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def usage(supervisor: int | None, services: Iterable[int]) -> Usage:
    """Return the CPU time of a supervisor with all its descendants, and of services with theirs."""
    found = Usage()
    for pid in tree(supervisor) if supervisor else ():
        found += _of_worker(pid)
    spent = sum(_thread_seconds(task) for top in services for pid in tree(top) for task in _tasks(pid))
    return found + Usage(services=spent)


def tree(pid: int) -> list[int]:
    """Return a process id and those of all its descendants."""
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
    """Return the ids of the model processes below a supervisor: those with image threads."""
    return [pid for pid in tree(supervisor) if any(name.startswith("image") for name in _names(pid).values())]


def handles(pid: int) -> int:
    """Return the number of open file descriptors of a process; 0 if it has ended."""
    try:
        return len(list((_PROC / str(pid) / "fd").iterdir()))
    except OSError:
        return 0


def threads(pid: int) -> int:
    """Return the number of threads of a process; 0 if it has ended."""
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
    """Return the names of the threads of a process by thread id."""
    return {int(task.name): _read(task / "comm").strip() for task in _tasks(pid)}


def _tasks(pid: int) -> list[Path]:
    return list((_PROC / str(pid) / "task").glob("[0-9]*"))


def _thread_seconds(task: Path) -> float:
    """Return the CPU time of a thread: the first number of `schedstat`, in nanoseconds (kernel: sched-stats.rst)."""
    words = _read(task / "schedstat").split()
    return int(words[0]) * _NANO if words else 0.0


def _read(path: Path) -> str:
    """Return the text of a file; empty if its process has ended."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
