"""What the embedded servers share: finding the program in its wheel, starting, stopping, and starting again.

A service object stands for a place (data folder, port, credentials), not for a process: `kill()` and then `start()`
give the same service back, with the same data on the same port.
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
"""File in a data folder, locked by the server that uses it."""

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TZ", "TMPDIR")


class EmbeddedService(ABC):
    """A server on the loopback address that can be started, stopped or killed, any number of times."""

    ready_seconds = 30.0
    """Longest wait for a server that starts, in seconds."""

    def __init__(self) -> None:
        self._process: ServiceProcess | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server; `None` when it is down."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the server process is there."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Start the server and wait until it serves. Interrupted or failed, it leaves nothing behind.

        Raises:
            StandaloneError: it did not start; with the end of its log.
        """
        try:
            self.launch()
            self.wait_ready()
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Start the server without waiting for it; `wait_ready` follows, and `kill` should that fail."""
        if self.running:
            raise StandaloneError(f"{type(self).__name__} is running already (process {self.pid})")
        self.kill()  # reaps one that died by itself
        self._process, stdin = self._prepare()
        self._process.start(stdin)

    def wait_ready(self) -> None:
        """Wait until the server serves.

        Raises:
            StandaloneError: it ended or did not answer; with the end of its log.
        """
        if self._process is None:
            raise StandaloneError(f"{type(self).__name__} has not been launched")
        self._process.wait_until(self._missing, limit_seconds=self.ready_seconds)

    def stop(self) -> None:
        """Stop the server in good order; killed when that takes too long."""
        if self._process is not None:
            self._process.stop()
            self._after_end()

    def kill(self) -> None:
        """Kill the server at once, as a crash would; data and port are kept for the next `start`."""
        if self._process is not None:
            self._process.kill()
            self._after_end()

    def suspend(self) -> None:
        """Freeze the server: it keeps its connections and answers nothing (SIGSTOP)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a suspended server go on (SIGCONT)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    @abstractmethod
    def _prepare(self) -> tuple[ServiceProcess, bytes]:
        """The process to start, and its standard input."""

    @abstractmethod
    def _missing(self) -> str | None:
        """Ask the server whether it serves; `None` when it does, otherwise what is missing."""

    def _after_end(self) -> None:
        """Clear away what the process left behind."""
        return


def wheel_program(distribution: str, name: str) -> Path | None:
    """A program that a wheel brought along; `None` when the wheel, or the program in it, is not installed.

    Never searched on PATH, where another version may lie. Installers need not record files, so the scripts folder of
    this interpreter is looked at as well.
    """
    try:
        files = importlib.metadata.files(distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    places = [Path(os.fspath(file.locate())).resolve() for file in files if file.name == name]
    places.append(Path(sys.executable).parent / name)
    return next((place for place in places if place.is_file() and os.access(place, os.X_OK)), None)


def private_folder(path: Path) -> Path:
    """Create a folder for us alone (mode 700), or make it so.

    Raises:
        StandaloneError: it cannot be created or belongs to somebody else.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise StandaloneError(f"cannot use the folder {path}: {error.strerror}; choose another state folder") from error
    return path


def environment(**variables: str) -> dict[str, str]:
    """A child's environment: what every program needs, and `variables`.

    Little of ours is passed on: variables such as AWS_*, WEED_*, HTTP_PROXY or a broken LANG change how servers work.
    """
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"LC_ALL": "C"} | variables
