"""A child process that cannot outlive this process.

The child runs in its own session, so Ctrl-C at a terminal reaches only this process, which stops its children in
order. The kernel kills the child if this process dies (`worker.processes.parent_death`). The child may hold a lock file
for as long as it lives, and writes to a log file. `stop` sends SIGTERM, waits for the grace period, sends SIGKILL to
the child and the rest of its process group, and always reaps the child.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import IO, Literal, Self

from worker.contract.errors import StandaloneError
from worker.processes.filelock import locked
from worker.processes.parent_death import bound_to_parent

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.01
_KILL_SECONDS = 10.0
_LOCK_SECONDS = 10.0
_TAIL_BYTES = 4096
_spawners: dict[int, _Spawner] = {}


class ServiceProcess:
    """A child process that is started once, by `start` or by `with`; `with` also stops it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        lock: Path | None = None,
        secrets: Collection[str] = (),
        death_signal: signal.Signals = signal.SIGKILL,
        grace_seconds: float = 8.0,
        kill_is_safe: bool = False,
    ) -> None:
        """Configure the child without starting it.

        Args:
            name: name in errors and logs.
            command: absolute path of the program, then its arguments. Pass no secrets: every user can read them.
            log: file for standard output and standard error. The log of the previous run is kept as `LOG.1`.
            env: the complete environment of the child; None copies that of this process.
            cwd: working directory.
            lock: file that the child keeps locked (flock) while it lives, to prevent two servers on the same data.
            secrets: strings to mask when an error quotes the log.
            death_signal: signal that the kernel sends to the child when this process has died.
            grace_seconds: time between SIGTERM and SIGKILL in `stop`.
            kill_is_safe: SIGKILL loses no data, so `stop` logs it as information instead of a warning.
        """
        self.name = name
        self.log = log
        self.returncode: int | None = None
        """Exit status after the child has been reaped; the negated number if a signal ended it."""
        self._command = [str(part) for part in command]
        self._env = env
        self._cwd = cwd
        self._lock = lock
        self._secrets = tuple(filter(None, secrets))
        self._death_signal = death_signal
        self._grace_seconds = grace_seconds
        self._kill_level = logging.INFO if kill_is_safe else logging.WARNING
        self._starting = False
        self._refusal: Exception | None = None
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, which is also the process group id; None if there is no process."""
        return self._popen.pid if self._popen else None

    @property
    def running(self) -> bool:
        """Whether the child has been started and has not ended."""
        return self._state() == "running"

    def start(self, stdin: bytes = b"") -> None:
        """Start the child with `stdin` as its standard input. When interrupted, leave no process behind.

        Raises:
            StandaloneError: the child cannot be started, or another process holds the lock.
        """
        if self._popen or self.returncode is not None:
            raise StandaloneError(f"{self.name} has already been started: create a new ServiceProcess")
        try:
            with server_lock(self._lock, self.name) as lock:
                self._starting = True
                _spawner().run(lambda: self._spawn(stdin, lock))
                self._starting = False
            if self._refusal is not None:
                raise StandaloneError(f"{self.name} cannot be started: {self._refusal}") from self._refusal
        except BaseException:
            self.kill()
            raise

    def wait_until(
        self, missing: Callable[[], str | None], *, limit_seconds: float, interval_seconds: float = 0.05
    ) -> None:
        """Wait until the child is ready.

        Args:
            missing: checks the child; returns None if it is ready, otherwise what is missing.
            limit_seconds: longest total wait.
            interval_seconds: pause between two checks.

        Raises:
            StandaloneError: the child ended, or was not ready in time. The text quotes the end of its log.
        """
        deadline = time.monotonic() + limit_seconds
        while self.running:
            answer = missing()
            if answer is None:
                return
            if time.monotonic() > deadline:
                raise self._failed(f"was not ready within {limit_seconds:g} s ({answer})")
            time.sleep(interval_seconds)
        self.kill()  # reaps it
        raise self._failed(f"ended during start with status {self.returncode}")

    def wait(self, seconds: float) -> bool:
        """Wait and return whether the child ended within `seconds`. `stop` or `kill` must still reap it."""
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child, not to its group. Does nothing if the child has ended."""
        if self._popen is not None and self.running:
            os.kill(self._popen.pid, number)

    def stop(self) -> int | None:
        """Send SIGTERM, wait for the grace period, then send SIGKILL. When interrupted, kill at once.

        Returns:
            `returncode`; None if the child was never started.
        """
        try:
            self.send_signal(signal.SIGTERM)
            self.send_signal(signal.SIGCONT)  # a suspended process would not handle SIGTERM
            if not self.wait(self._grace_seconds):
                text = "%s did not stop within %g s and is killed"
                log.log(self._kill_level, text, self.name, self._grace_seconds)
        finally:
            self.kill()
        return self.returncode

    def kill(self) -> None:
        """Send SIGKILL to the child and its process group, and reap the child.

        Raises:
            StandaloneError: the child does not end.
        """
        if self._starting:  # `start` was interrupted: the spawner runs this job after that start
            _spawner().run(lambda: None)
            self._starting = False
        if self._popen is None:
            return
        if self._state() != "lost":
            # Before reaping: until the group leader is reaped, the kernel cannot reuse its group id.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        if not self.wait(_KILL_SECONDS):
            raise StandaloneError(f"{self.name} (process {self._popen.pid}) does not end after SIGKILL")
        self.returncode = self._popen.wait()
        self._popen = None

    def log_tail(self) -> str:
        """Return the last lines of the log, with secrets replaced by stars."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
            for secret in self._secrets:
                text = text.replace(secret, "***")
            return text.strip()
        return ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _spawn(self, stdin: bytes, lock: int | None) -> None:
        """Start the child. Runs in the spawner thread."""
        try:
            with _new_log(self.log) as log, _readable(stdin) as source:
                self._popen = subprocess.Popen(
                    bound_to_parent(self._command, self._death_signal),
                    stdin=source,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._env,
                    cwd=self._cwd,
                    start_new_session=True,
                    umask=0o077,
                    pass_fds=() if lock is None else (lock,),
                )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._refusal = error

    def _state(self) -> Literal["none", "running", "ended", "lost"]:
        """Return the state: `ended` has not been reaped yet, `lost` was reaped elsewhere in this process."""
        if self._popen is None:
            return "none"
        try:
            ended = os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return "lost"
        return "ended" if ended else "running"

    def _failed(self, how: str) -> StandaloneError:
        return StandaloneError(f"{self.name} {how}; the end of {self.log}:\n{self.log_tail() or '(empty)'}")


class _Spawner:
    """The only thread of this process that starts children.

    The kernel sends the death signal when the *thread* that forked ends, so this thread lives as long as the process.
    Python runs signal handlers in the main thread only, so Ctrl-C cannot interrupt this thread between the fork and
    the moment the child is known.
    """

    def __init__(self) -> None:
        # Both are implemented in C: Ctrl-C during a call leaves them consistent, unlike those of `threading`.
        self._jobs: SimpleQueue[tuple[Callable[[], None], SimpleQueue[None]]] = SimpleQueue()
        _thread.start_new_thread(self._serve, ())

    def run(self, job: Callable[[], None]) -> None:
        """Run a job in the thread and wait for it. An interrupt ends only the wait. Jobs run in order."""
        done: SimpleQueue[None] = SimpleQueue()
        self._jobs.put((job, done))
        done.get()

    def _serve(self) -> None:
        while True:
            job, done = self._jobs.get()
            try:
                job()
            finally:
                done.put(None)


def _spawner() -> _Spawner:
    """Return the spawner of this process. One per process id, because threads do not survive a fork."""
    pid = os.getpid()
    return _spawners.get(pid) or _spawners.setdefault(pid, _Spawner())


def _new_log(path: Path) -> IO[bytes]:
    """Create an empty log that only its owner can read. The previous log becomes `PATH.1`."""
    with contextlib.suppress(FileNotFoundError):
        path.replace(path.with_name(f"{path.name}.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb")


def _readable(data: bytes) -> IO[bytes]:
    """Return an in-memory file with that content. Unlike a pipe, writing to it never waits for the reader."""
    file = os.fdopen(os.memfd_create("stdin"), "w+b")
    file.write(data)
    file.seek(0)
    return file


@contextlib.contextmanager
def reraise_swallowed_interrupts() -> Iterator[None]:
    """Raise a Ctrl-C at the end of the block if a finaliser swallowed it.

    Python prints and drops an exception in `__del__` or in a weak reference callback. The clients of Redis and S3 have
    many of both, and a KeyboardInterrupt there has no effect. Does nothing outside the main thread, or if Ctrl-C does
    not raise KeyboardInterrupt.

    Raises:
        KeyboardInterrupt: one was raised within the block and did not leave it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    received: list[int] = []

    def record_and_raise(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, record_and_raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if received:
        raise KeyboardInterrupt


@contextlib.contextmanager
def server_lock(path: Path | None, name: str) -> Iterator[int | None]:
    """Hold the lock file of a server's data; its child process inherits the descriptor.

    After a server was killed, its processes may need a moment to end, so a held lock is waited for.

    Args:
        path: the lock file; None locks nothing.
        name: name of the server in errors.

    Yields:
        The descriptor; None without a lock file.

    Raises:
        StandaloneError: another process holds the lock for more than 10 s.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(locked(path, limit_seconds=_LOCK_SECONDS)) if path else None
        except TimeoutError as error:
            raise StandaloneError(f"{name}: another server runs on the same data ({path} is locked)") from error
        yield descriptor
