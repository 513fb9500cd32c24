"""The whole system on this machine, as a system under test: Redis, S3 and workers in a temporary folder.

Everything is what runs in production: `worker start`, its steward, and jobs submitted by the `producer` command.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from worker.bench.harness.measure import OnProgress
from worker.bench.harness.usage import Usage, usage
from worker.contract import settings
from worker.contract.errors import SetupError
from worker.contract.job import JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.settings import RedisSettings, Settings
from worker.contract.storage.s3 import ObjectStore
from worker.cpu.kernel import format_cpu_list
from worker.processes.service import ServiceProcess
from worker.standalone import ports
from worker.standalone.services import DEFAULT_BUCKET, Standalone

SOURCE = S3Url(DEFAULT_BUCKET, "photos/")

_WORKER_GRACE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_USAGE_SECONDS = 1.0
_POLLS = 50
_USAGE_POLLS = 10
"""The pause between two polls of a job grows to its age divided by these: polling takes core time, which counts against
the job (0.016 cores at ten polls and one `usage` a second)."""
_UPLOADS = 4
_JOB_SECONDS = 1800.0


@dataclass(frozen=True)
class Moment:
    """The state of a running job at one moment."""

    seconds: float
    """Since the job was submitted."""

    done: int
    usage: Usage
    queued: bool
    """Whether chunks wait for a worker."""


@dataclass(frozen=True)
class JobRun:
    """One completed job."""

    view: JobView
    moments: tuple[Moment, ...]
    usage: Usage
    """CPU time from before its first image to after its last."""

    @property
    def seconds(self) -> float:
        """Seconds from the start of its first chunk to the outcome of its last image."""
        return (self.view.completed_at or 0.0) - (self.view.started_at or 0.0)

    @property
    def images(self) -> int:
        """Number of images of the job."""
        return self.view.total or 0

    def busy(self, cores: int) -> float:
        """Return the share of the cores' time that workers and services used while chunks waited in the queue.

        Not a number if chunks waited too briefly to tell.
        """
        queued = [moment for moment in self.moments if moment.queued and moment.done]
        if len(queued) < 2:  # noqa: PLR2004 -- a period has two ends
            return float("nan")
        first, last = queued[0], queued[-1]
        return (last.usage - first.usage).total / ((last.seconds - first.seconds) * cores)


class SystemUnderTest:
    """Redis and S3 server of one measurement, and its workers after `start_workers`. Use as a context manager."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """Prepare the system; nothing starts yet.

        Args:
            folder: an empty folder for all its files.
            environment: settings in addition to those of this process.
        """
        self._folder = folder
        self._extra = dict(environment or {})
        self._port = ports.choose({"metrics": (0,)})["metrics"]
        self.services = Standalone(folder / "state")
        self._workers: ServiceProcess | None = None
        self.settings: Settings
        self.ledger: Ledger
        self.store: ObjectStore

    def __enter__(self) -> Self:
        self.services.start()
        try:
            password = self.services.environment()["MASKMILL_REDIS__PASSWORD"]
            redis = RedisSettings(url=self.services.redis_url, password=SecretStr(password))
            self.settings = settings.load(redis=redis, s3=self.services.s3.settings)
            self.ledger = Ledger(self.settings.redis, client_name="maskmill-bench")
            self.store = ObjectStore(self.settings.s3)
        except BaseException:
            self.services.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop_workers()
            self.ledger.close()
            self.store.close()
        finally:
            self.services.stop()

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of commands and workers, with `extra` on top."""
        programs = str(Path(sys.executable).parent)
        return {
            **os.environ,
            **self.services.environment(),
            "MASKMILL_REDIS__PREFIX": RedisSettings().prefix,
            "MASKMILL_S3__ALLOW": "[]",
            **self._extra,
            "PATH": os.pathsep.join(filter(None, (programs, os.environ.get("PATH")))),
            **(extra or {}),
        }

    @property
    def log(self) -> Path:
        """Log file of the workers."""
        return self._folder / "worker.log"

    @property
    def supervisor(self) -> int | None:
        """Process id of `worker start`; None while it does not run."""
        return self._workers.pid if self._workers else None

    def start_workers(self, extra: Mapping[str, str] | None = None, *, cpus: Sequence[int] | None = None) -> None:
        """Run `worker start` and return at once.

        Args:
            extra: more settings.
            cpus: to pin it to; all by default.
        """
        command = [sys.executable, "-m", "worker.cli", "start"]
        if cpus is not None:
            command = [sys.executable, "-m", "worker.bench.harness.pin_exec", format_cpu_list(cpus), *command]
        self._workers = ServiceProcess(
            "worker start",
            command,
            log=self.log,
            env=self.environment({"MASKMILL_METRICS__PORT": str(self._port), **(extra or {})}),
            grace_seconds=_WORKER_GRACE_SECONDS,
        )
        self._workers.start()

    def stop_workers(self) -> None:
        """Send SIGTERM to the workers and wait for their end."""
        if self._workers is not None:
            self._workers.stop()
            self._workers = None

    def upload(self, data: bytes, count: int, *, already: int = 0) -> None:
        """Store the same picture under `count` keys, of which the first `already` exist."""

        def put(number: int) -> None:
            self.store.put(SOURCE / f"{number:06d}.jpg", data, content_type="image/jpeg")

        with ThreadPoolExecutor(_UPLOADS) as threads:
            for _ in threads.map(put, range(already, count)):
                pass

    def submit(self, *options: str, source: S3Url = SOURCE) -> str:
        """Submit a job with an empty destination; return its id.

        Raises:
            SetupError: `producer submit` failed.
        """
        dest = S3Url(DEFAULT_BUCKET, f"masks-{uuid.uuid4().hex[:12]}/")
        key = uuid.uuid4().hex
        command = ["producer", "submit", str(source), str(dest), "--job-key", key, *options]
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SetupError(f"{' '.join(command)} failed with {done.returncode}: {done.stderr.strip()[-500:]}")
        newest = self.ledger.jobs(1)
        if not newest:
            raise SetupError("Redis does not know the job that was just submitted")
        return newest[0].job

    def run_job(self, *options: str, source: S3Url = SOURCE, on_progress: OnProgress = lambda line: None) -> JobRun:
        """Submit a job and watch it until its last image has an outcome.

        Raises:
            SetupError: the workers ended, an image failed, or the job took longer than 30 minutes.
        """
        before, moments = self.usage(), list[Moment]()
        began = time.monotonic()
        job = self.submit(*options, source=source)
        deadline = began + _JOB_SECONDS
        due = 0.0
        while (view := self.ledger.view(job)).completed_at is None:
            self._check(view, deadline)
            age = time.monotonic() - began
            if age >= due:
                due = age + max(_USAGE_SECONDS, age / _USAGE_POLLS)
                queued = view.cursor < view.chunks or self._queued() > 0
                moments.append(Moment(age, view.done, self.usage(), queued))
                on_progress(f"{view.done} of {view.total} images")
            time.sleep(max(_POLL_SECONDS, age / _POLLS))
        after = self.usage()
        self._check(view, deadline)
        return JobRun(view, tuple(moments), after - before)

    def wait_for(self, job: str) -> JobView:
        """Wait until the last image of a job has an outcome.

        Raises:
            SetupError: see `run_job`.
        """
        deadline = time.monotonic() + _JOB_SECONDS
        while (view := self.ledger.view(job)).completed_at is None:
            self._check(view, deadline)
            time.sleep(_POLL_SECONDS)
        self._check(view, deadline)
        return view

    def usage(self) -> Usage:
        """Return the CPU time of workers and services so far."""
        return usage(self.supervisor, self.services.pids.values())

    def wait_for_workers(self, count: int) -> None:
        """Wait until `count` worker processes have loaded their network.

        Raises:
            SetupError: the workers ended, or took longer than 30 minutes.
        """
        fleet, deadline = Fleet(self.ledger.connection), time.monotonic() + _JOB_SECONDS
        while len(fleet.facts()) < count:
            self._check(None, deadline)
            time.sleep(_POLL_SECONDS)

    def stage_seconds(self) -> dict[str, tuple[float, float]]:
        """Return wall and CPU seconds of every stage so far, from the metrics of this node."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: dict[str, tuple[float, float]] = {}
        wall, cpu = _by_stage(text, "maskmill_stage_seconds_sum"), _by_stage(text, "maskmill_stage_cpu_seconds_total")
        for stage, seconds in wall.items():
            found[stage] = seconds, cpu.get(stage, 0.0)
        return found

    def _queued(self) -> int:
        return Backlog(self.ledger.connection).queued()

    def _check(self, view: JobView | None, deadline: float) -> None:
        if self._workers is not None and not self._workers.running:
            raise SetupError(f"the workers ended: {self._workers.log_tail()[-800:]}")
        if view is not None and view.failed + view.dead:
            raise SetupError(f"{view.failed + view.dead} images failed: {dict(view.codes)}; see {self.log}")
        if time.monotonic() > deadline:
            raise SetupError(f"the workers were not done after {_JOB_SECONDS:g} s; see {self.log}")


def _by_stage(text: str, name: str) -> dict[str, float]:
    """Return the values of one family of a Prometheus exposition by their label `stage`."""
    found = {}
    for line in text.splitlines():
        if line.startswith(f'{name}{{stage="'):
            labels, _, value = line.rpartition(" ")
            found[labels.split('"')[1]] = float(value)
    return found
