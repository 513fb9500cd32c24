"""The embedded services and the workers, for `maskmill cut` and `maskmill serve`.

All processes are children of this process. They stop in order: workers first, so that they
can return their chunks to the queue, then S3 and Redis. While they run, a record in the state folder says so
(`worker.contract.local_services`).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from worker.contract import local_services
from worker.contract.errors import StandaloneError
from worker.contract.local_services import RunningServices
from worker.contract.settings import ModelSettings
from worker.processes.service import ServiceProcess
from worker.standalone.services import Standalone

_WORKER_GRACE_SECONDS = 30.0
_POLL_SECONDS = 0.1
_ERROR_LINE = re.compile(r" ERROR \S+ (?:\w+=\S+ )*(.+)")
"""A line of a worker's log at level ERROR, as text (`worker.telemetry.logs`): time, level, process, fields, message."""
_OF_OTHER_SERVICES = ("MASKMILL_REDIS__", "MASKMILL_S3__")
"""Variables that belong to the services a user has configured, such as a key prefix or an allow-list."""


class Stack:
    """Redis, S3 and, by default, the workers of this machine; `with Stack(folder) as stack:`."""

    def __init__(
        self, state: Path, *, workers: bool = True, model: ModelSettings | None = None, command: str = "serve"
    ) -> None:
        """Describe the stack without starting it.

        Args:
            state: state folder, see `services.Standalone`.
            workers: whether to run `worker start` as well.
            model: the network of the workers; None leaves it to the settings.
            command: name of the command that starts the stack, for the messages of others.
        """
        self._model, self._command = model_variables(model) if model else {}, command
        self.services = Standalone(state)
        self._workers = workers
        self._worker: ServiceProcess | None = None
        self._is_recorded = False

    def start(self) -> None:
        """Start the services and the workers. If this fails or is interrupted, everything is stopped again.

        Raises:
            StandaloneError: a service or the workers did not start.
        """
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            # A service manager stops a process by SIGTERM: handle it like Ctrl-C.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self.services.start(self._start_workers if self._workers else lambda: None)
            local_services.write_running(self.services.state, self._record())
            self._is_recorded = True
        except BaseException:
            self.stop()
            raise

    def _start_workers(self) -> None:
        """Start the workers; they replace those of an attempt to start the services on other ports.

        They need a second before their first request, so they start beside the S3 server.
        """
        if self._worker is not None:
            self._worker.kill()
        self._worker = ServiceProcess(
            "worker start",
            [sys.executable, "-m", "worker.cli", "start"],
            log=self.worker_log,
            env=self.environment(),
            grace_seconds=_WORKER_GRACE_SECONDS,
        )
        self._worker.start()

    def environment(self) -> dict[str, str]:
        """Return the environment of this process plus the network given and the settings of the services.

        The scripts folder of this installation comes first on PATH.
        """
        programs = str(Path(sys.executable).parent)
        path = os.pathsep.join(filter(None, (programs, os.environ.get("PATH"))))
        own = {name: value for name, value in os.environ.items() if not name.startswith(_OF_OTHER_SERVICES)}
        return {**own, **self._model, **self.services.environment(), "PATH": path}

    def _record(self) -> RunningServices:
        pid = os.getpid()
        return RunningServices(
            pid=pid,
            started=local_services.process_start(pid) or 0,
            command=self._command,
            workers=self._workers,
            model=self._model,
            settings=_as_tree(self.services.environment()),
        )

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

    def worker_error(self) -> str:
        """Return the last error in the log of workers that have exited; empty if they run, or ended without one."""
        if self._worker is None or self._worker.running:
            return ""
        errors = [found[1] for line in self._worker.log_tail().splitlines() if (found := _ERROR_LINE.search(line))]
        return errors[-1] if errors else ""

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
            self.stop_workers()
        finally:
            if self._is_recorded:
                local_services.remove_running(self.services.state)
            self.services.stop()

    def stop_workers(self) -> None:
        """Stop the workers after the images in flight; the services stay."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def model_variables(model: ModelSettings) -> dict[str, str]:
    """Return the variables that make a worker run the network of these settings."""
    given = model.model_dump(mode="json", exclude_defaults=True, exclude={"cache_dir"}) | {"source": model.source}
    return {f"MASKMILL_MODEL__{name.upper()}": str(value) for name, value in given.items()}


def _as_tree(variables: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return group -> name -> value for variables such as MASKMILL_REDIS__URL."""
    tree: dict[str, dict[str, str]] = {}
    for variable, value in variables.items():
        group, _, name = variable.removeprefix("MASKMILL_").lower().partition("__")
        tree.setdefault(group, {})[name] = value
    return tree
