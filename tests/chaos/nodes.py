"""Nodes of a small cluster on one machine: each is a `worker start` with its own host name (a UTS namespace)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

import psutil

from support.clocks import SteppedClock
from support.commands import BIN, environment
from worker.processes.parent_death import bound_to_parent

_NAMESPACE = [
    shutil.which("unshare") or "/usr/bin/unshare",
    *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
    "--uts",
]


_NAMED = {"NAME_REQUESTS": "1"}
"""S3 learns which process makes a request; `python_environment` has the module that says it."""


def with_code(settings: Mapping[str, str], code: Path | None) -> dict[str, str]:
    """Return settings under which commands run the package in a folder; None for the installed one."""
    folders = [] if code is None else [str(code)]
    folders += [settings["PYTHONPATH"]] if "PYTHONPATH" in settings else []
    return {**settings, **({"PYTHONPATH": os.pathsep.join(folders)} if folders else {})}


class Node:
    """One `worker start`, which can be restarted. Only processes that it started receive signals."""

    def __init__(
        self,
        name: str,
        settings: Mapping[str, str],
        log: Path,
        code: Path | None = None,
        inside: Callable[[str], AbstractContextManager[None]] | None = None,
    ) -> None:
        """Describe a node.

        Args:
            name: its host name.
            settings: of its processes.
            log: of its processes.
            code: folder of the package that it runs first; None for the installed one.
            inside: moves a thread to the host of that name; None if there is one host.
        """
        self.name, self.log = name, log
        self._inside = inside
        self.clock = SteppedClock(log.with_suffix(".clock"))
        self.code = code
        """Folder of the package that the next `start` runs; None for the installed one."""
        self._settings = dict(settings)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, psutil.Process] = {}

    def start(self) -> None:
        rename = [sys.executable, "-c", _RENAME, self.name]
        host = nullcontext() if self._inside is None else self._inside(self.name)
        with self.log.open("ab") as log, host:
            self._supervisor = subprocess.Popen(
                bound_to_parent([*_NAMESPACE, *rename, str(BIN / "worker"), "start"], signal.SIGTERM),
                env=environment(with_code({**self._settings, **self.clock.python_environment(), **_NAMED}, self.code)),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._remember(psutil.Process(self._supervisor.pid))

    @property
    def running(self) -> bool:
        return self._supervisor is not None and self._supervisor.poll() is None

    def supervisor(self) -> list[psutil.Process]:
        return [psutil.Process(self._supervisor.pid)] if self.running and self._supervisor else []

    def consumers(self) -> list[tuple[str, psutil.Process]]:
        """Return the Celery parents with their names in the ledger."""
        return [(name, process) for name, process in self._below("--hostname") if name]

    def model_processes(self) -> list[tuple[str, psutil.Process]]:
        """Return the model processes with the names of their consumers in the ledger."""
        found = []
        for name, parent in self.consumers():
            with suppress(psutil.Error):
                found += [(name, child) for child in parent.children()]
        for _, child in found:
            self._remember(child)
        return found

    def stewards(self) -> list[psutil.Process]:
        return [process for _, process in self._below("worker.steward.process")]

    def processes(self) -> list[psutil.Process]:
        """Return all processes that were ever seen and are alive."""
        self.model_processes()
        self._seen = {pid: process for pid, process in self._seen.items() if process.is_running()}
        return [process for process in self._seen.values() if _alive(process)]

    def begin_to_stop(self) -> None:
        """Send SIGTERM to the supervisor."""
        if self._supervisor is not None and self.running:
            self._supervisor.send_signal(signal.SIGTERM)

    def stop(self, seconds: float) -> None:
        """Send SIGTERM to the supervisor; kill the processes that are left after `seconds`."""
        self.processes()
        self.begin_to_stop()
        until = time.monotonic() + seconds
        while self.processes() and time.monotonic() < until:
            if self._supervisor is not None:
                self._supervisor.poll()
            time.sleep(0.1)
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        if self._supervisor is not None:
            self._supervisor.wait()

    def _below(self, word: str) -> Iterator[tuple[str, psutil.Process]]:
        for process in self.supervisor():
            with suppress(psutil.Error):
                for child in process.children():
                    self._remember(child)
                    line = child.cmdline()
                    # With -I it has not yet executed its program, see `worker.processes.parent_death`.
                    if word in line and "-I" not in line:
                        yield line[line.index(word) + 1] if word == "--hostname" else "", child

    def _remember(self, process: psutil.Process) -> None:
        self._seen[process.pid] = process


_RENAME = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"


def _alive(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
