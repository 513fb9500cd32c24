"""Base class and helpers of the embedded servers: find the program in its wheel, start, stop and restart it.

A service object represents a data folder, a port and credentials, not a process: after `kill()`, `start()` brings up
the same service with the same data on the same port.
"""

from __future__ import annotations

import importlib.metadata
import os
import signal
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from worker.contract.errors import StandaloneError
from worker.processes.service import ServiceProcess

INSTALL = "pip install 'maskmill[standalone]'"

SERVER_LOCK = "server.lock"
"""Name of the lock file in each data folder; the server holds the lock while it runs."""

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR")


class EmbeddedService(ABC):
    """A server on the loopback address that can be started and stopped or killed any number of times."""

    ready_seconds = 30.0
    """Time-out for the server to become ready, in seconds."""

    def __init__(self) -> None:
        self._process: ServiceProcess | None = None

    @property
    def pid(self) -> int | None:
        """Return the process id of the server; `None` if it is not running."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Return whether the server process is running."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start the server and wait until it is ready. If this fails or is interrupted, the server is killed.

        Raises:
            StandaloneError: the server did not start; the message ends with the last lines of its log.
        """
        try:
            self.launch()
            self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Start the server without waiting for it. Call `wait_ready` next, and `kill` if that fails."""
        if self.running:
            raise StandaloneError(f"{type(self).__name__} is already running (process {self.pid})")
        self.kill()  # reaps a server that exited unexpectedly
        self._process, stdin = self._prepare()
        self._process.start(stdin)

    def wait_ready(self) -> None:
        """Wait until the server is ready.

        Raises:
            StandaloneError: the server exited or did not answer; the message ends with the last lines of its log.
        """
        if self._process is None:
            raise StandaloneError(f"{type(self).__name__} has not been launched")
        self._process.wait_until(self._missing, limit_seconds=self.ready_seconds)

    def stop(self) -> None:
        """Stop the server gracefully; kill it after its grace period."""
        if self._process is not None:
            self._process.stop()
            self._after_end()

    def kill(self) -> None:
        """Kill the server at once, as in a crash; data and port are kept for the next `start`."""
        if self._process is not None:
            self._process.kill()
            self._after_end()

    def suspend(self) -> None:
        """Suspend the server (SIGSTOP): it keeps its connections but does not answer."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a suspended server (SIGCONT)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    @abstractmethod
    def _prepare(self) -> tuple[ServiceProcess, bytes]:
        """Return the process to start, and its standard input."""

    @abstractmethod
    def _missing(self) -> str | None:
        """Check whether the server is ready; return `None` if it is, else what is missing."""

    def _after_end(self) -> None:
        """Remove files that the process left behind."""
        return


def wheel_program(distribution: str, name: str) -> Path | None:
    """Return the path of a program installed by a wheel; `None` if the wheel or its program is not installed.

    PATH is not searched, since it may hold another version. Installers need not record files, so the scripts folder of
    this interpreter is searched as well.
    """
    try:
        files = importlib.metadata.files(distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    places = [Path(os.fspath(file.locate())).resolve() for file in files if file.name == name]
    places.append(Path(sys.executable).parent / name)
    return next((place for place in places if place.is_file() and os.access(place, os.X_OK)), None)


def private_folder(path: Path) -> Path:
    """Create a folder of mode 700, or set the mode of an existing one.

    Raises:
        StandaloneError: the folder cannot be created, or belongs to another user.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise StandaloneError(f"cannot use the folder {path}: {error.strerror}; choose another state folder") from error
    return path


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a server: the few variables that every program needs, and `variables`.

    Other variables are not inherited: AWS_*, WEED_*, HTTP_PROXY or an invalid LANG change how the servers work.
    """
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"LC_ALL": "C"} | variables
