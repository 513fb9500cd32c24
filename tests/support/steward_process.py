"""A steward as its supervisor starts it, without workers beside it."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from support.commands import environment
from worker.processes.memory import peak_bytes

_LIMITS = {"files": resource.RLIMIT_NOFILE, "file_bytes": resource.RLIMIT_FSIZE}


@dataclass
class StewardProcess:
    """A running steward."""

    process: subprocess.Popen[bytes]
    _lines: list[str] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def log(self) -> str:
        """What it has written so far."""
        return "".join(self._lines)

    @property
    def peak_mib(self) -> float:
        """Its largest resident size so far."""
        return peak_bytes(self.process.pid) / 2**20

    def follow(self) -> None:
        """Keep what it writes, until it ends."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line.decode("utf-8", "replace"))


@contextmanager
def steward(settings: Mapping[str, str], **limits: int) -> Iterator[StewardProcess]:
    """Run a steward during the block, and stop it by SIGTERM.

    Args:
        settings: its environment.
        limits: `files`: most file descriptors; `file_bytes`: longest file it can write, as on a full disk.
    """

    def limit() -> None:
        for name, value in limits.items():
            resource.setrlimit(_LIMITS[name], (value, value))

    process = subprocess.Popen(
        [sys.executable, "-m", "worker.steward.process"],
        env=environment(settings),
        stderr=subprocess.PIPE,
        preexec_fn=limit,  # noqa: PLW1509 -- the limits hold for the steward alone
    )
    found = StewardProcess(process)
    reader = threading.Thread(target=found.follow)
    reader.start()
    try:
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()
            reader.join()
            assert process.stderr is not None
            process.stderr.close()
