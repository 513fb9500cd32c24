"""Child processes of a benchmark, as the parent uses them: one JSON object per line in each direction.

    parent                         child (`worker.bench.harness.child`)
    {"job": ..., "cpus": [...]} -> pins itself, loads, warms up
                                <- {"facts": ...} or {"error": ...}
    {"images": 4}               -> runs them
                                <- {"wall_seconds": ..., "cpu_seconds": ..., "peak_memory_bytes": ...}
    end of input                -> ends

Output of a child and its libraries goes to a log file; errors quote its last lines when the child fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from worker.bench.harness.measure import TurnTiming
from worker.contract.errors import SetupError
from worker.processes.parent_death import bound_to_parent

_QUOTED_LINES = 3


class TurnAnswer(TypedDict):
    """What a child measured while it ran the images of a question."""

    wall_seconds: float
    """Of all images together."""
    cpu_seconds: float
    peak_memory_bytes: int
    """Peak resident set size of the child so far."""


def environment(*, huge_pages: bool = True) -> dict[str, str]:
    """Return the environment that the supervisor gives to workers.

    malloc asks for huge pages where the kernel allows them, and OpenBLAS starts no second thread pool.

    Args:
        huge_pages: False leaves malloc unchanged.
    """
    tunables = {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")} if huge_pages else {}
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", **tunables}


def tail(log: Path) -> str:
    """Return the last lines of a log in one line, to quote them in an error."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(lines[-_QUOTED_LINES:]) or "its log is empty"


class Child:
    """One child process that has answered its first request. Use as a context manager, or `close` it."""

    def __init__(self, request: Mapping[str, Any], log: Path) -> None:
        """Start the process and wait for its first answer.

        Args:
            request: see `worker.bench.harness.requests`; with `job` and `cpus`.
            log: file for the output of the process; appended to.

        Raises:
            SetupError: the process ended, or answered with an error.
        """
        self._log = log
        self._job = str(request["job"])
        with log.open("ab") as printed:
            self._process = subprocess.Popen(
                bound_to_parent([sys.executable, "-m", "worker.bench.harness.child"], signal.SIGKILL),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=printed,
                env=environment(huge_pages=request.get("huge_pages", True)),
                text=True,
            )
        try:
            self.first = self._ask(request)
        except BaseException:
            self.close()
            raise

    def run(self, images: int) -> TurnAnswer:
        """Let the child run a number of images.

        Raises:
            SetupError: the process ended, or answered with an error.
        """
        answer = self._ask({"images": images})
        return {
            "wall_seconds": float(answer["wall_seconds"]),
            "cpu_seconds": float(answer["cpu_seconds"]),
            "peak_memory_bytes": int(answer["peak_memory_bytes"]),
        }

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send one line and wait for one."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise SetupError(f"{self._job}: the process has no pipes")
        try:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = self._process.wait()
            raise SetupError(f"{self._job}: the process ended with {code}; {tail(self._log)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SetupError(f"{self._job}: {answer['error']}")
        return answer

    def close(self) -> None:
        """End the process. A second call does nothing."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:  # it ended with a question unread
                    continue
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Contestant:
    """A network that takes turns, each in a new process: a `measure.TurnTaker`.

    A process that waited for its next turn would distort the comparison. Memory that lies idle while others run is
    slower to use again (on virtual machines that look for idle pages, by a tenth for seconds), and the wait differs
    from contender to contender. It also keeps the memory need at one network.
    """

    def __init__(self, request: Mapping[str, Any], *, images: int, log: Path) -> None:
        """Prepare a contestant; no process starts yet.

        Args:
            request: see `Child`.
            images: of one turn.
            log: see `Child`.
        """
        self._request, self._images, self._log = request, images, log
        self.facts: dict[str, Any] = {}
        self.peak_memory_bytes = 0

    def turn(self) -> TurnTiming:
        """Start a process, load, warm up, then measure. See `measure.TurnTaker`."""
        with Child(self._request, self._log) as child:
            self.facts = child.first["facts"]
            answer = child.run(self._images)
        self.peak_memory_bytes = max(self.peak_memory_bytes, answer["peak_memory_bytes"])
        return TurnTiming(self._images, answer["wall_seconds"], answer["cpu_seconds"])


def once(request: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """Let a child process do one job and return its answer.

    Raises:
        SetupError: the job failed.
    """
    with Child(request, log) as child:
        return child.first
