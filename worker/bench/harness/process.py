"""Child processes of a benchmark, seen from the parent: one JSON object per line in each direction.

    parent                         child (`worker.bench.harness.child`)
    {"job": ..., "cpus": [...]} -> pins itself, loads, warms up
                                <- {"facts": ...} or {"error": ...}
    {"images": 4}               -> runs them
                                <- {"wall_seconds": ..., "cpu_seconds": ..., "peak_memory_bytes": ...}
    end of input                -> ends

What a child or its libraries print goes to a log file, whose end is quoted when the child fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.bench.harness.measure import Sample
from worker.contract.errors import SetupError
from worker.processes.parent_death import bound_to_parent

_QUOTED_LINES = 3


def environment(*, huge_pages: bool = True) -> dict[str, str]:
    """As the supervisor gives it to workers: huge pages from malloc where the kernel allows, no second thread pool."""
    tunables = {"GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")} if huge_pages else {}
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", **tunables}


def tail(log: Path) -> str:
    """The last lines of a log, for an error."""
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return " | ".join(lines[-_QUOTED_LINES:]) or "it said nothing"


class Child:
    """One child process that has done its job's first part. Use as a context manager, or `close` it."""

    def __init__(self, request: Mapping[str, Any], log: Path) -> None:
        """Start it and wait for its first answer.

        Args:
            request: `job`, `cpus`, `huge_pages` (as for workers unless false) and what the job needs.
            log: file for what it prints; added to.

        Raises:
            SetupError: it ended, or answered with an error.
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
            self.first = self.ask(request)
        except BaseException:
            self.close()
            raise

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Send one line, wait for one.

        Raises:
            SetupError: no answer, or an error.
        """
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
        """End it. Calling it again does nothing."""
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
    """A network that takes turns, each in a process of its own: a `measure.Runner`.

    Its own and not one that waits for its next turn: memory that lies idle while others run is slower to use again (on
    virtual machines that look for idle pages, by a tenth for seconds), the wait differs from contender to contender,
    and only one network has to fit into the memory.
    """

    def __init__(self, request: Mapping[str, Any], *, images: int, log: Path) -> None:
        """Nothing runs yet.

        Args:
            request: see `Child`.
            images: of one turn.
            log: see `Child`.
        """
        self._request, self._images, self._log = request, images, log
        self.facts: dict[str, Any] = {}
        self.peak_memory_bytes = 0

    def turn(self) -> Sample:
        """See `measure.Runner`: start, load, warm up, and then measure."""
        with Child(self._request, self._log) as child:
            self.facts = child.first["facts"]
            answer = child.ask({"images": self._images})
        self.peak_memory_bytes = max(self.peak_memory_bytes, int(answer["peak_memory_bytes"]))
        return Sample(self._images, answer["wall_seconds"], answer["cpu_seconds"])


def once(request: Mapping[str, Any], log: Path) -> dict[str, Any]:
    """Have a child do one job, and its answer.

    Raises:
        SetupError: it failed.
    """
    with Child(request, log) as child:
        return child.first
