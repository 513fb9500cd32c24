"""The embedded services and the workers, for `worker standalone` and `worker demo`.

All processes are children of this process. They start in order and stop in reverse order: workers first, so that they
can return their chunks to the queue, then S3 and Redis.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from worker.contract.errors import StandaloneError
from worker.processes.service import ServiceProcess
from worker.standalone.services import Standalone

_WORKER_GRACE_SECONDS = 30.0
_POLL_SECONDS = 0.1


class Stack:
    """Redis, S3 and, by default, the workers of this machine; `with Stack(folder) as stack:`."""

    def __init__(self, state: Path, *, workers: bool = True, settings: Mapping[str, str] | None = None) -> None:
        """Describe the stack without starting it.

        Args:
            state: state folder, see `services.Standalone`.
            workers: whether to run `worker start` as well.
            settings: further variables for the environment of workers and commands.
        """
        self._settings = dict(settings or {})
        self.services = Standalone(state)
        self._workers = workers
        self._worker: ServiceProcess | None = None

    def start(self) -> None:
        """Start the services, then the workers. If this fails or is interrupted, everything is stopped again.

        Raises:
            StandaloneError: a service or the workers did not start.
        """
        # A service manager stops a process by SIGTERM: handle it like Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self.services.start()
            if self._workers:
                self._worker = ServiceProcess(
                    "worker start",
                    [sys.executable, "-m", "worker.cli", "start"],
                    log=self.worker_log,
                    env=self.environment(),
                    grace_seconds=_WORKER_GRACE_SECONDS,
                )
                self._worker.start()
        except BaseException:
            self.stop()
            raise

    def environment(self) -> dict[str, str]:
        """Return the environment of this process plus the settings given and those of the services.

        The scripts folder of this installation comes first on PATH.
        """
        programs = str(Path(sys.executable).parent)
        path = os.pathsep.join(filter(None, (programs, os.environ.get("PATH"))))
        return {**os.environ, **self._settings, **self.services.environment(), "PATH": path}

    @property
    def worker_log(self) -> Path:
        """Return the log file of the workers."""
        return self.services.state / "logs" / "worker.log"

    def run(self, command: Sequence[str]) -> int:
        """Run a command on this terminal with the settings of the services, and return its exit status.

        Ctrl-C at the terminal also reaches the command, which is expected to exit.

        Raises:
            StandaloneError: a part of the stack exited while the command ran; the command has been terminated.
        """
        with subprocess.Popen(command, env=self.environment()) as process:
            try:
                while process.poll() is None:
                    self.check()
                    time.sleep(_POLL_SECONDS)
            except BaseException:
                process.terminate()
                raise
        return process.returncode

    def check(self) -> None:
        """Check that all parts of the stack are still running.

        Raises:
            StandaloneError: a part of the stack exited; the message ends with the last lines of its log, or names it.
        """
        if self._worker is not None and not self._worker.running:
            raise StandaloneError(f"the workers exited; last lines of {self.worker_log}:\n{self._worker.log_tail()}")
        for name in ("redis", "s3"):
            if not getattr(self.services, name).running:
                raise StandaloneError(f"the {name} server exited; see its log {self.worker_log.with_stem(name)}")

    def stop(self) -> None:
        """Stop the workers, then the services. If interrupted, kill the remaining processes."""
        try:
            if self._worker is not None:
                self._worker.stop()
        finally:
            self.services.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
