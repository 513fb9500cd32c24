"""The embedded services with workers beside them: what `worker standalone` and `worker demo` run.

Everything is a child of this process, started in order and stopped in reverse: workers first, so that they can still
hand back what they hold, then S3 and Redis.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from worker.contract.errors import StandaloneError
from worker.processes.service import ServiceProcess
from worker.standalone.services import Standalone

_WORKER_GRACE_SECONDS = 30.0
_POLL_SECONDS = 0.1


class Stack:
    """Redis, S3 and, unless told otherwise, the workers of this machine; `with Stack(folder) as stack:`."""

    def __init__(self, state: Path, *, workers: bool = True) -> None:
        """Describe it; nothing is started yet.

        Args:
            state: folder of everything that is kept, see `services.Standalone`.
            workers: whether to run `worker start` as well.
        """
        self.services = Standalone(state)
        self._workers = workers
        self._worker: ServiceProcess | None = None

    def start(self) -> None:
        """Start services, then workers. Interrupted or failed, it leaves nothing behind.

        Raises:
            StandaloneError: something did not start.
        """
        # A service manager's SIGTERM is a wish to stop in order, as Ctrl-C is.
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
        """This process's environment with the settings of the services; programs of this installation come first."""
        programs = str(Path(sys.executable).parent)
        path = os.pathsep.join(filter(None, (programs, os.environ.get("PATH"))))
        return {**os.environ, **self.services.environment(), "PATH": path}

    @property
    def worker_log(self) -> Path:
        """Where the workers' log lines go."""
        return self.services.state / "logs" / "worker.log"

    def run(self, command: Sequence[str]) -> int:
        """Run a command on this terminal with the settings of the services; returns its exit status.

        Ctrl-C at the terminal reaches the command too, which ends by itself.

        Raises:
            StandaloneError: a part of the stack ended meanwhile; the command has been stopped.
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
        """See that everything that was started is still there.

        Raises:
            StandaloneError: a part of the stack ended by itself; with the end of its log.
        """
        if self._worker is not None and not self._worker.running:
            raise StandaloneError(f"the workers ended; the end of {self.worker_log}:\n{self._worker.log_tail()}")
        for name in ("redis", "s3"):
            if not getattr(self.services, name).running:
                raise StandaloneError(f"the {name} server ended; its log is {self.worker_log.with_stem(name)}")

    def stop(self) -> None:
        """Stop workers, then services. Interrupted, it kills what is still there."""
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
