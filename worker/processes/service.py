"""One child process that cannot outlive us.

Life of a child: it gets a session of its own (Ctrl-C at a terminal reaches only us, and we stop our children in order),
ties its life to ours (`worker.processes.parent_death`), may hold a lock file for as long as it lives, and writes to a
log file. Stopping is SIGTERM, a time of grace, SIGKILL for it and whatever it left in its process group, and it is
always reaped. If we are killed, the kernel kills the child.
"""

from __future__ import annotations

import _thread
import contextlib
import fcntl
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
from worker.processes.parent_death import tied

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.01
_KILL_SECONDS = 10.0
_LOCK_SECONDS = 10.0
_TAIL_BYTES = 4096
_spawners: dict[int, _Spawner] = {}


class ServiceProcess:
    """A child process, started once: by `start`, or by `with`, which also stops it."""

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
        """Describe the child; nothing is started yet.

        Args:
            name: in errors and logs.
            command: absolute path of the program, then its arguments. No secrets here: every user can read them.
            log: file for standard output and standard error; that of the run before is kept as `LOG.1`.
            env: the whole environment of the child; `None` for ours.
            cwd: working directory.
            lock: file locked (flock) by the child for as long as it lives, against two servers on the same data.
            secrets: strings never to be shown when the log is quoted in an error.
            death_signal: what the kernel sends to the child when this process is gone.
            grace_seconds: between SIGTERM and SIGKILL in `stop`.
            kill_is_safe: whether nothing is lost by SIGKILL, so that `stop` need not warn of it.
        """
        self.name = name
        self.log = log
        self.returncode: int | None = None
        """Exit status once it has been reaped; negative for a signal."""
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
        """Process id, which is also its process group; `None` when there is no such process."""
        return self._popen.pid if self._popen else None

    @property
    def running(self) -> bool:
        """Started, and not ended yet."""
        return self._state() == "running"

    def start(self, stdin: bytes = b"") -> None:
        """Start the child and give it `stdin`, then end of file. Interrupted, it leaves nothing behind.

        Raises:
            StandaloneError: the child cannot be started, or another process holds the lock.
        """
        if self._popen or self.returncode is not None:
            raise StandaloneError(f"{self.name} has been started before: make a new ServiceProcess")
        try:
            with locked(self._lock, self.name) as lock:
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
        """Wait for the child to be ready.

        Args:
            missing: asks the child; `None` when it is ready, otherwise what is still missing.
            limit_seconds: for all of it.
            interval_seconds: between two questions.

        Raises:
            StandaloneError: the child ended, or was not ready in time; with the end of its log.
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
        raise self._failed(f"ended while it was starting, with status {self.returncode}")

    def wait(self, seconds: float) -> bool:
        """Whether the child ended within that time. It is still to be reaped by `stop` or `kill`."""
        deadline = time.monotonic() + seconds
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child itself, not to its group; nothing happens when it has ended."""
        if self._popen is not None and self.running:
            os.kill(self._popen.pid, number)

    def stop(self) -> int | None:
        """SIGTERM, the time of grace, SIGKILL. Interrupted, it kills at once.

        Returns:
            `returncode`; `None` when the child was never started.
        """
        try:
            self.send_signal(signal.SIGTERM)
            self.send_signal(signal.SIGCONT)  # a suspended process would sleep over it
            if not self.wait(self._grace_seconds):
                text = "%s did not stop within %g s and is killed"
                log.log(self._kill_level, text, self.name, self._grace_seconds)
        finally:
            self.kill()
        return self.returncode

    def kill(self) -> None:
        """SIGKILL to the child and its process group, at once.

        Raises:
            StandaloneError: it does not end even so.
        """
        if self._starting:  # `start` was interrupted: this job runs after that start, in the same thread
            _spawner().run(lambda: None)
            self._starting = False
        if self._popen is None:
            return
        if self._state() != "lost":
            # Before it is reaped: while the leader is there, even dead, its group id can belong to nobody else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, signal.SIGKILL)
        if not self.wait(_KILL_SECONDS):
            raise StandaloneError(f"{self.name} (process {self._popen.pid}) does not end, not even by SIGKILL")
        self.returncode = self._popen.wait()
        self._popen = None

    def log_tail(self) -> str:
        """The last lines of the log, secrets replaced by stars."""
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
        """Runs in the spawner thread."""
        try:
            with _new_log(self.log) as log, _readable(stdin) as source:
                self._popen = subprocess.Popen(
                    tied(self._command, self._death_signal),
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
        """`ended` is not reaped yet; `lost` has been reaped by somebody else."""
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
    """The one thread of this process that starts children.

    The kernel takes the end of the *thread* that forked for the death of the parent, so this thread lives as long as
    the process. And Python runs signal handlers in the main thread only, so Ctrl-C cannot strike between the fork
    and the moment the child is known.
    """

    def __init__(self) -> None:
        # Written in C, these two stay whole when Ctrl-C strikes in the middle of a call; `threading` does not.
        self._jobs: SimpleQueue[tuple[Callable[[], None], SimpleQueue[None]]] = SimpleQueue()
        _thread.start_new_thread(self._serve, ())

    def run(self, job: Callable[[], None]) -> None:
        """Wait until the thread has done a job. Interrupted, only the waiting ends; jobs are done in order."""
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
    """The spawner of this process: threads do not survive a fork."""
    pid = os.getpid()
    return _spawners.get(pid) or _spawners.setdefault(pid, _Spawner())


def _new_log(path: Path) -> IO[bytes]:
    """An empty log, readable by its owner only; the one before becomes `PATH.1`."""
    with contextlib.suppress(FileNotFoundError):
        path.replace(path.with_name(f"{path.name}.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb")


def _readable(data: bytes) -> IO[bytes]:
    """A file of that content, in memory: unlike a pipe it never makes us wait for the reader."""
    file = os.fdopen(os.memfd_create("stdin"), "w+b")
    file.write(data)
    file.seek(0)
    return file


@contextlib.contextmanager
def unlost_interrupts() -> Iterator[None]:
    """Raise the Ctrl-C that a finaliser swallowed.

    Python prints and forgets an exception in `__del__` or in the callback of a weak reference, and clients of Redis
    and S3 have plenty of both: a KeyboardInterrupt that strikes there ends nothing. Here it comes out at the end of
    the block. Where Ctrl-C does not mean KeyboardInterrupt, or outside of the main thread, this does nothing.

    Raises:
        KeyboardInterrupt: one struck within the block, and none came out of it.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    struck: list[int] = []

    def note_and_raise(number: int, frame: FrameType | None) -> None:
        struck.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, note_and_raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if struck:
        raise KeyboardInterrupt


@contextlib.contextmanager
def locked(path: Path | None, name: str) -> Iterator[int | None]:
    """Lock a file, to hand its descriptor to a child.

    The child of a process that was killed may need a moment to be gone, so a lock that is held is waited for.

    Raises:
        StandaloneError: it is held for longer than that.
    """
    if path is None:
        yield None
        return
    deadline = time.monotonic() + _LOCK_SECONDS
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600)) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StandaloneError(f"{name}: another server runs on the same data ({path} is locked)") from None
            time.sleep(_POLL_SECONDS)
        yield file.fileno()
