"""Run one Celery worker per core set and a steward, for as long as `worker start` runs.

    supervisor ── worker-0 (Celery parent, pinned) ── model process
               ── worker-1 ...
               ── steward (feeds the queue and ends jobs, while it leads the fleet)

Each process is pinned before it executes its program, so all its threads stay inside its core set. A process that ends
is started again with an increasing back-off. If a worker keeps ending, the supervisor stops the node with an error
message. A steward that keeps ending costs only the leadership of this node, which another node takes over: the workers
go on, and an alert tells. Only a steward that never came up, because of a setting, stops the node.
On SIGTERM or SIGINT, the supervisor sends SIGTERM to all processes: they finish the images in flight and hand the rest
back. It kills those that are left after the grace period; their chunks return when their leases expire. A second
signal kills at once. If the supervisor dies, the kernel sends SIGTERM to its processes.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import FrameType

from worker.contract.errors import PlacementError, SetupError
from worker.contract.log_fields import event
from worker.contract.settings import ModelSettings, Settings
from worker.cpu import pinning
from worker.cpu.placement import CoreSet, Plan
from worker.processes.parent_death import bound_to_parent
from worker.processes.wakeup import Wakeup
from worker.telemetry.metrics import FOLDER_VARIABLE

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_RESTART_WINDOW_SECONDS = 600.0
_MAX_BACK_OFF_SECONDS = 30.0

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 -- the files in it have unpredictable names

_UP_SECONDS = 20.0
"""Running time after which a process has come up."""


class Slot:
    """A set of CPUs and the process that runs on them."""

    def __init__(
        self, name: str, cpus: Sequence[int], argv: Sequence[str], env: Mapping[str, str], *, essential: bool = True
    ) -> None:
        """Configure the process without starting it.

        Args:
            name: its name in logs.
            cpus: its CPUs.
            argv: its command.
            env: its environment.
            essential: give up if it keeps ending; False: only if it never came up because of a set-up error.
        """
        self.name, self._cpus, self._essential = name, tuple(cpus), essential
        self._came_up = False
        self._started_at = 0.0
        self._argv, self._env = list(argv), dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._starts: deque[float] = deque()
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        """Process id; None if no process runs."""
        return self._process.pid if self._process else None

    @property
    def due(self) -> bool:
        """Whether no process runs and the back-off before the next start is over."""
        return self._process is None and self.starts_in == 0

    @property
    def starts_in(self) -> float:
        """Seconds until the next start is due, if no process runs."""
        return max(0.0, self._start_at - time.monotonic())

    def start(self) -> None:
        """Start the process on its CPUs.

        Raises:
            PlacementError: the CPUs are no longer available.
        """
        cpus = self._cpus
        try:
            self._process = subprocess.Popen(
                bound_to_parent(self._argv, signal.SIGTERM),
                env=self._env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at a terminal reaches only the supervisor, which stops in order
                preexec_fn=lambda: pinning.pin(cpus),  # noqa: PLW1509 -- the supervisor has one thread
            )
        except subprocess.SubprocessError as error:  # Popen reports no more about a failure before exec
            raise PlacementError(
                f"{self.name} cannot be pinned to CPUs {cpus}: if the affinity mask or the cpuset of this process has "
                "changed, start it again"
            ) from error
        except OSError as error:  # no memory, no file descriptors: later
            log.error("%s cannot be started: %s", self.name, error, extra=event("process_not_started", name=self.name))
            self._note_start()
            self._back_off()
            return
        self._note_start()
        log.info("started", extra=event("process_started", name=self.name, pid=self._process.pid, cpus=cpus))

    def _note_start(self) -> None:
        self._started_at = time.monotonic()
        self._starts.append(self._started_at)

    def reap(self, restart_limit: int) -> None:
        """Reap the process if it has ended, and set the time of its next start.

        Raises:
            SetupError: it has reached `restart_limit` starts within ten minutes, and the node cannot do without it.
        """
        if self._process is None or self._process.poll() is None:
            return
        code, self._process = self._process.returncode, None
        now = time.monotonic()
        while self._starts and self._starts[0] < now - _RESTART_WINDOW_SECONDS:
            self._starts.popleft()
        self._came_up |= now - self._started_at >= _UP_SECONDS
        needed = self._essential or (code == os.EX_CONFIG and not self._came_up)
        if len(self._starts) >= restart_limit and needed:
            raise SetupError(
                f"{self.name} ended {len(self._starts)} times within ten minutes (last exit status {code}): see its "
                "log lines above; `worker check` tests Redis, S3, the bundle and the cores one by one"
            )
        pause = self._back_off()
        log.warning(
            "restarting", extra=event("process_exited", name=self.name, status=code, restart_seconds=round(pause))
        )

    def _back_off(self) -> float:
        """Set the time of the next start, and return the pause before it in seconds."""
        pause = min(2.0 ** min(len(self._starts) - 1, 10), _MAX_BACK_OFF_SECONDS)
        self._start_at = time.monotonic() + pause
        return pause

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None


class Supervisor:
    """Keep one process per core set and the steward running until a signal stops the node."""

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        *,
        model: ModelSettings | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the slots without starting a process.

        Args:
            settings: the settings of this node.
            plan: the core set of each process.
            model: model settings with the tuned precisions; None keeps those of `settings`.
            environ: the environment for the processes; None copies that of this process.

        Raises:
            PlacementError: the environment has a variable that breaks pinning.
        """
        environ = os.environ if environ is None else environ
        pinning.refuse_forbidden_variables(environ)
        self._settings = settings
        self._metrics_folder = (
            tempfile.TemporaryDirectory(prefix="maskmill-metrics-", dir=_memory_folder())
            if settings.metrics.port
            else None
        )
        if self._metrics_folder is not None:
            environ = {**environ, FOLDER_VARIABLE: self._metrics_folder.name}
        if settings.limits.picture_memory_mib is None:
            environ = {**environ, "MASKMILL_LIMITS__PICTURE_MEMORY_MIB": str(plan.picture_memory_mib)}
        # What `default` stands for is decided once per start, not by each process.
        environ = {**environ, "MASKMILL_MODEL__SOURCE": settings.model.source}
        if model is not None and model != settings.model:
            environ = {
                **environ,
                "MASKMILL_MODEL__PRECISION": model.precision,
                "MASKMILL_MODEL__INFERENCE_PRECISION": model.inference_precision,
            }
        self.slots = [
            Slot(
                f"worker-{cores.index}",
                cores.cpus,
                _argv(cores, settings.worker.node_name),
                _environment(cores, environ),
            )
            for cores in plan.core_sets
        ]
        # The steward shares the CPUs of all workers: it is idle most of the time.
        all_cpus = sorted(cpu for cores in plan.core_sets for cpu in cores.cpus)
        steward = [sys.executable, "-m", "worker.steward.process"]
        self.slots.append(Slot("steward", all_cpus, steward, environ, essential=False))
        # Plain flags: a signal handler that takes a lock deadlocks if the interrupted main thread holds it.
        self._stop = False
        self._hurry = False

    def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            SetupError: a process keeps ending. All others have been stopped.
        """
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        # Without a Python handler, SIGCHLD would not end the wait.
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _ignore)
        try:
            with Wakeup() as wakeup:
                while not self._stop:
                    self._reap_and_start()
                    starts = [slot.starts_in for slot in self.slots if slot.pid is None]
                    wakeup.wait(min(starts, default=None))
        finally:
            self._shut_down()
            if self._metrics_folder is not None:
                self._metrics_folder.cleanup()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _reap_and_start(self) -> None:
        for slot in self.slots:
            slot.reap(self._settings.worker.restart_limit)
            if slot.due and not self._stop:
                slot.start()
                self._pause(self._settings.worker.stagger_seconds)

    def _pause(self, seconds: float) -> None:
        """Sleep until the time is over or a signal stops the node."""
        until = time.monotonic() + seconds
        while not self._stop and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))

    def _shut_down(self) -> None:
        for slot in self.slots:
            slot.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.worker.grace_seconds
        while any(slot.running for slot in self.slots) and time.monotonic() < deadline and not self._hurry:
            time.sleep(_POLL_SECONDS / 4)
        for slot in self.slots:
            if slot.running:
                log.warning("the grace period is over", extra=event("process_killed", name=slot.name))
                slot.signal(signal.SIGKILL)
        while any(slot.running for slot in self.slots):
            time.sleep(_POLL_SECONDS / 4)
        log.info("all processes have ended", extra=event("node_stopped"))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._hurry = self._stop
        self._stop = True
        log.info("stopping", extra=event("node_stopping", signal=signal.Signals(number).name, hurry=self._hurry))


def _memory_folder() -> str | None:
    """Return the folder for the counts of all processes, in memory; None selects the one for temporary files.

    The counts are mapped into memory, and the kernel kills a process that writes to a mapped file on a full disk.
    """
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK | os.X_OK) else None


def _ignore(_number: int, _frame: FrameType | None) -> None:
    pass


def _argv(cores: CoreSet, node: str) -> list[str]:
    name = f"worker-{cores.index}@{node}"
    # Gossip, mingle and Celery's heartbeats send messages between all pairs of workers: quadratic in the fleet size.
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "worker", "--hostname", name, *quiet]


def _environment(cores: CoreSet, environ: Mapping[str, str]) -> dict[str, str]:
    return {
        **environ,
        "MASKMILL_WORKER__PROCESS_NAME": f"worker-{cores.index}",
        "MASKMILL_PLAN__STREAMS": str(cores.streams),
        "MASKMILL_PLAN__THREADS": str(cores.threads),
        # The thread pools of NumPy would compete with the inference threads.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # Request transparent huge pages where the kernel grants them on request (madvise); needs glibc >= 2.35.
        "GLIBC_TUNABLES": environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    }
