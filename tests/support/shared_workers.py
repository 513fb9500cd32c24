"""Workers, and a Redis to fail under them, that all tests of one module share.

    with own_redis(folder) as server, SharedWorkers.start(...) as workers: ...

Starting Python, Celery and a model takes seconds, a fault takes one. So the faults of a module happen to the same
workers, one after the other, and each test asserts at its end that no process had to be restarted.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from support import commands, small_jobs
from support.fault_injection import Faults
from support.fault_timing import FAST
from support.installation import Installation, make_bucket, new_installation
from support.job_account import Account, progress, settle
from support.node_processes import Node
from support.small_jobs import connected_submitter
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobPolicy
from worker.contract.outputs import OutputOptions
from worker.standalone import ports
from worker.standalone.services import Standalone
from worker.standalone.valkey import Valkey

PASSWORD = "only-for-this-test"

BACK_OFF = 35.0
"""Celery waits 2, 4, ... 30 s between attempts to connect; these pauses do not follow the queue timings."""


@contextlib.contextmanager
def own_redis(folder: Path) -> Iterator[Valkey]:
    """Run a Redis that no other test uses."""
    server = Valkey(
        data=folder / "valkey",
        log=folder / "valkey.log",
        port=ports.choose({"redis": (0,)})["redis"],
        password=PASSWORD,
    )
    server.start()
    try:
        yield server
    finally:
        server.resume()
        server.kill()


def installation_at(
    standalone: Standalone, url: str, more: Mapping[str, str], *, password: str = PASSWORD
) -> Installation:
    """Return an installation in the Redis at `url` and in the S3 that all tests share, with short queue timings."""
    own = {"MASKMILL_REDIS__URL": url, "MASKMILL_REDIS__PASSWORD": password}
    installation = new_installation(standalone).with_settings(FAST | own | dict(more))
    make_bucket(installation)
    return installation


def client(installation: Installation, **options: Any) -> redis.Redis:
    """Open a connection of the test, whose name differs from those of the workers."""
    return redis.Redis.from_url(
        installation.settings.redis.secret_url(), decode_responses=True, client_name="the-test", **options
    )


@dataclass
class SharedWorkers:
    """The workers of one node, their installation, and a check that they survive."""

    installation: Installation
    faults: Faults
    node: Node
    log: Path
    uploaded: dict[str, int] = field(default_factory=dict)
    """Folder -> number of pictures in it."""

    @classmethod
    @contextlib.contextmanager
    def start(
        cls, installation: Installation, faults: Faults, log: Path, *, processes: int = 1
    ) -> Iterator[SharedWorkers]:
        """Run `worker start`; the block starts once all processes have loaded their model."""
        more = {"MASKMILL_PLAN__PROCESSES": str(processes)} | faults.environment()
        with commands.workers(installation.environment | more, log) as supervisor:
            node = Node(supervisor.pid)
            commands.wait_for(lambda: log.read_text().count("event=model_loaded") >= processes, "the models", 90)
            yield cls(installation, faults, node, log)

    def submit(self, count: int, *, chunk: int, folder: str = "in", policy: JobPolicy | None = None) -> str:
        """Submit `count` pictures from this process to a new destination; return the job's id."""
        self.upload(count, folder)
        with connected_submitter(self.installation, chunk) as submitter:
            names = (folder, f"out-{secrets.token_hex(4)}")
            source, dest = (f"s3://{self.installation.bucket}/{name}/" for name in names)
            return submitter.submit(source, dest, OutputOptions(), policy=policy).view.job

    def submit_and_start(self, count: int, *, chunk: int) -> str:
        """Submit `count` pictures and wait until three of them are done; return the job's id."""
        job = self.submit(count, chunk=chunk)
        with Ledger(self.installation.settings.redis) as ledger:
            progress(ledger, job, 3)
        return job

    def upload(self, count: int, folder: str = "in") -> None:
        """Upload the pictures of a folder once; a folder keeps the size of its first use."""
        if folder not in self.uploaded:
            small_jobs.upload(self.installation, count, folder)
            self.uploaded[folder] = count
        assert self.uploaded[folder] == count, "a folder has one size"

    def settle(self, job: str, *, seconds: float = 90.0) -> Account:
        """Wait for the end of a job and return its account; executions count since they were last cleared."""
        return settle(self.installation, job, self.faults, seconds=seconds)

    def seconds_to_progress(self, job: str, within: float = BACK_OFF) -> float:
        """Wait until a job makes progress or has ended; return how long that took."""
        began = time.monotonic()
        with Ledger(self.installation.settings.redis, retries=12) as ledger:
            before = ledger.view(job).done
            commands.wait_for(
                lambda: (view := ledger.view(job)).done > before or view.ended, f"job {job} to make progress", within
            )
        return time.monotonic() - began

    @contextlib.contextmanager
    def surviving(self) -> Iterator[None]:
        """Assert that the processes after the block are those before it."""
        before = self.node.pids()
        yield
        after = self.node.pids()
        assert after == before, f"a process ended and was restarted; the log ends with\n{self._end_of_log()}"

    def _end_of_log(self, lines: int = 80) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
