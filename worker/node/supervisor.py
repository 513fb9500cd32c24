"""One Celery worker process per core set and a steward, for as long as `worker start` runs.

    supervisor ── worker-0 (celery, pinned) ── child (model)
               ── worker-1 ...
               ── steward (feeds the queue and ends jobs, if it leads the fleet)

A process is pinned before it executes anything, so every thread it ever makes stays inside its core set. A process
that ends is started again, later each time; one that keeps ending takes the node down with a clear message. On
SIGTERM or SIGINT all get SIGTERM at once: their children finish the images in work and hand the rest back; what is
still there after the grace period is killed, and the queue's lease brings its chunk back. A second signal kills at
once. If the supervisor itself is killed, the kernel sends the workers SIGTERM.
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


class Slot:
    """Some CPUs and the process that runs on them."""

    def __init__(self, name: str, cpus: Sequence[int], argv: Sequence[str], env: Mapping[str, str]) -> None:
        """`name` is how the process calls itself in logs and, a worker, towards Celery."""
        self.name, self._cpus = name, tuple(cpus)
        self._argv, self._env = list(argv), dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._starts: deque[float] = deque()
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process else None

    @property
    def due(self) -> bool:
        """No process runs, and the pause before the next start is over."""
        return self._process is None and self.starts_in == 0

    @property
    def starts_in(self) -> float:
        """Seconds until it is due, where no process runs; 0 if it is."""
        return max(0.0, self._start_at - time.monotonic())

    def start(self) -> None:
        """Start the process on its cores.

        Raises:
            PlacementError: these cores are not to be had any more.
        """
        cpus = self._cpus
        try:
            self._process = subprocess.Popen(
                bound_to_parent(self._argv, signal.SIGTERM),
                env=self._env,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C at the terminal reaches the supervisor alone, which stops in order
                preexec_fn=lambda: pinning.pin(cpus),  # noqa: PLW1509 -- the supervisor has one thread
            )
        except subprocess.SubprocessError as error:  # all that Popen tells about a failure before exec
            raise PlacementError(
                f"{self.name} cannot be pinned to CPUs {cpus}: has the affinity mask or the cpuset of this process "
                "changed since it started? Start it again"
            ) from error
        self._starts.append(time.monotonic())
        log.info("event=worker_started name=%s pid=%d cpus=%s", self.name, self._process.pid, cpus)

    def reap(self, restart_limit: int) -> None:
        """Notice that the process ended and decide when it starts again.

        Raises:
            SetupError: it ended too often.
        """
        if self._process is None or self._process.poll() is None:
            return
        code, self._process = self._process.returncode, None
        now = time.monotonic()
        while self._starts and self._starts[0] < now - _RESTART_WINDOW_SECONDS:
            self._starts.popleft()
        if len(self._starts) >= restart_limit:
            raise SetupError(
                f"{self.name} ended {len(self._starts)} times within ten minutes (last exit status {code}): its log "
                "lines above say why; `worker check` tests Redis, S3, the bundle and the cores one by one"
            )
        pause = min(2.0 ** (len(self._starts) - 1), _MAX_BACK_OFF_SECONDS)
        self._start_at = now + pause
        log.warning("event=worker_ended name=%s status=%d restart_in=%.0fs", self.name, code, pause)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if there is one."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None


class Supervisor:
    """Keeps one process per core set running until told to stop."""

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        *,
        model: ModelSettings | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            settings: of this node.
            plan: which process gets which cores.
            model: precision to run, where tuning has found a better one than `auto`.
            environ: of this process.

        Raises:
            PlacementError: a variable that breaks pinning is set.
        """
        environ = os.environ if environ is None else environ
        pinning.refuse_forbidden_variables(environ)
        self._settings = settings
        self._counts = tempfile.TemporaryDirectory(prefix="maskmill-metrics-") if settings.metrics.port else None
        if self._counts is not None:
            environ = {**environ, FOLDER_VARIABLE: self._counts.name}
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
        # Wherever the workers are: it is idle most of the time.
        everywhere = sorted(cpu for cores in plan.core_sets for cpu in cores.cpus)
        self.slots.append(Slot("steward", everywhere, [sys.executable, "-m", "worker.steward.process"], environ))
        # Plain flags: a handler that takes a lock can meet its own main thread holding it.
        self._stop = False
        self._hurry = False

    def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            SetupError: a process keeps ending; all others have been stopped.
        """
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _nothing)  # a handler: else it would wake nobody
        try:
            with Wakeup() as wakeup:
                while not self._stop:
                    self._tend()
                    starts = [slot.starts_in for slot in self.slots if slot.pid is None]
                    wakeup.wait(min(starts, default=None))
        finally:
            self._end()
            if self._counts is not None:
                self._counts.cleanup()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _tend(self) -> None:
        for slot in self.slots:
            slot.reap(self._settings.worker.restart_limit)
            if slot.due and not self._stop:
                slot.start()
                self._pause(self._settings.worker.stagger_seconds)

    def _pause(self, seconds: float) -> None:
        """Sleep, but not through a signal to stop."""
        until = time.monotonic() + seconds
        while not self._stop and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))

    def _end(self) -> None:
        for slot in self.slots:
            slot.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.worker.grace_seconds
        while any(slot.running for slot in self.slots) and time.monotonic() < deadline and not self._hurry:
            time.sleep(_POLL_SECONDS / 4)
        for slot in self.slots:
            if slot.running:
                log.warning("event=worker_killed name=%s", slot.name)
                slot.signal(signal.SIGKILL)
        while any(slot.running for slot in self.slots):
            time.sleep(_POLL_SECONDS / 4)
        log.info("event=stopped")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._hurry = self._stop
        self._stop = True
        log.info("event=stopping signal=%s hurry=%s", signal.Signals(number).name, self._hurry)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass


def _argv(cores: CoreSet, node: str) -> list[str]:
    name = f"worker-{cores.index}@{node}"
    # Gossip, mingle and heartbeats are all-to-all chatter that grows with the square of the fleet.
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "worker", "--hostname", name, *quiet]


def _environment(cores: CoreSet, environ: Mapping[str, str]) -> dict[str, str]:
    return {
        **environ,
        "MASKMILL_WORKER__PROCESS_NAME": f"worker-{cores.index}",
        "MASKMILL_PLAN__STREAMS": str(cores.streams),
        "MASKMILL_PLAN__THREADS": str(cores.threads),
        # NumPy's own thread pools would compete with the inference threads.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # Transparent huge pages where the kernel offers them on request; glibc >= 2.35 reads this.
        "GLIBC_TUNABLES": environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
    }
