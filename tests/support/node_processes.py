"""The processes of one node, and faults that come from outside: signals and a memory limit."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Node:
    """The processes below one `worker start`."""

    pid: int

    def consumers(self) -> list[psutil.Process]:
        """Return the Celery parents, one per core set."""
        return self._started_as("worker.app")

    def model_processes(self) -> list[psutil.Process]:
        """Return the processes that run chunks."""
        return [child for consumer in self.consumers() for child in children_of(consumer) if not _gone(child)]

    def stewards(self) -> list[psutil.Process]:
        """Return the steward, if it runs."""
        return self._started_as("worker.steward.process")

    def pids(self) -> set[int]:
        """Return the ids of all processes that must survive a fault outside the node."""
        return {process.pid for process in [*self.consumers(), *self.model_processes(), *self.stewards()]}

    def _started_as(self, module: str) -> list[psutil.Process]:
        found = []
        for process in children_of(psutil.Process(self.pid)):
            try:
                if module in process.cmdline() and not _gone(process):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def children_of(process: psutil.Process) -> list[psutil.Process]:
    """Return the direct children of a process; none if it has ended."""
    try:
        return process.children()
    except psutil.NoSuchProcess:
        return []


def _gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def signal_tree(process: psutil.Process, number: signal.Signals) -> None:
    """Signal a process and its descendants, descendants first: SIGSTOP for a node that hangs, SIGCONT to resume it."""
    for one in [*process.children(recursive=True), process]:
        one.send_signal(number)


@contextmanager
def memory_limit(node: Node, mib: int) -> Iterator[None]:
    """Kill each model process of a node that uses more than `mib` MiB, like a memory limit of the kernel.

    A container may not create control groups, so a thread polls instead; the signal and the moment are the same.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for process in node.model_processes():
                with suppress(psutil.NoSuchProcess):
                    if process.memory_info().rss > mib * 2**20:
                        process.kill()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
