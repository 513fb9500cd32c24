"""`worker bench submit`: jobs of a million images or more, without a picture, compared with plain Celery.

    embedded Redis and S3 server (real ones, in a temporary folder)
    └── for each number of keys
        producer.bench.submit   submit, status, history, recover, cancel, retry: one process per action
        worker.steward.process  ends the cancelled job
    producer.bench.submit       leave_jobs, recover_all: many jobs, of which Redis knows none
    worker.bench.plain_celery   one message per image, `plain_messages` of them

Figures of plain Celery are extrapolated from those messages; every message costs the same.

A child process prints one JSON object and then waits for the end of its input, so that this process can read its peak
memory while its address space still exists.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import SecretStr

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.measure import OnProgress
from worker.bench.harness.process import tail
from worker.bench.submit_report import (
    SCHEMA_VERSION,
    Cancellation,
    JobEnd,
    Recovery,
    RecoveryOfAll,
    Retry,
    StatusTimes,
    Submission,
    SubmitReport,
    SubmitResult,
)
from worker.contract import redis_keys
from worker.contract.errors import SetupError
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger
from worker.contract.settings import RedisSettings
from worker.contract.storage.outcome_log import PART_OUTCOMES
from worker.cpu import topology
from worker.processes.memory import peak_bytes
from worker.standalone.services import DEFAULT_BUCKET, Standalone

_MIB = 1024 * 1024
_ACTION_SECONDS = 3600.0
_POLL_SECONDS = 0.05
_LOST_JOB_IMAGES = 10_000
_LOG_LINE_BYTES = 160
"""Mean size of an outcome with one output."""


@dataclass(frozen=True)
class SubmitOptions:
    """What to measure."""

    keys: tuple[int, ...]
    """Images of each job."""
    plain_messages: int = 50_000
    lost_jobs: int = 100
    """Jobs that are rebuilt after the loss of Redis, with as many images as the first job, at most 10,000."""


def run(options: SubmitOptions, on_progress: OnProgress) -> SubmitReport:
    """Measure plain Celery, then one job per number of keys.

    Raises:
        SetupError: a service or an action failed.
    """
    before = machine_facts.load_average()
    with (
        tempfile.TemporaryDirectory(prefix="maskmill-bench-") as folder,
        Standalone(Path(folder) / "state") as services,
    ):
        bench = _Bench(services, Path(folder), on_progress)
        on_progress(f"plain Celery, {options.plain_messages:,} messages")
        plain, _ = bench.child("worker.bench.plain_celery", str(options.plain_messages))
        results = [bench.measure(keys) for keys in options.keys]
        recover_all = bench.recover_all(options.lost_jobs, min(options.keys[0], _LOST_JOB_IMAGES))
    return SubmitReport(
        {
            "schema_version": SCHEMA_VERSION,
            "benchmark": "submit",
            "machine": machine_facts.facts(topology.read()),
            "load_average_before": before,
            "load_average_after": machine_facts.load_average(),
            "results": results,
            "recover_all": recover_all,
            "plain_celery": {
                "messages": plain["messages"],
                "wall_seconds": plain["wall_seconds"],
                "cpu_seconds": plain["cpu_seconds"],
                "redis_bytes": plain["redis_bytes"],
                "redis_bytes_per_image": plain["redis_bytes"] / max(1, plain["messages"]),
            },
        }
    )


class _Bench:
    """Measurements on one Redis and one S3 server."""

    def __init__(self, services: Standalone, folder: Path, on_progress: OnProgress) -> None:
        self._folder, self._on_progress = folder, on_progress
        scrubbed = {name: value for name, value in os.environ.items() if not name.startswith("MASKMILL_")}
        self._environment = scrubbed | services.environment()
        password = SecretStr(self._environment["MASKMILL_REDIS__PASSWORD"])
        self._redis = RedisSettings(url=services.redis_url, password=password)

    def measure(self, keys: int) -> SubmitResult:
        """Measure one job of this many keys, from its submission to a retry after its end."""
        dest = f"s3://{DEFAULT_BUCKET}/{keys}/"
        with Ledger(self._redis, client_name="maskmill-bench") as ledger:
            self._on_progress(f"{keys:,} keys: submit")
            submit = cast(Submission, self._act_with_peak("submit", keys, dest))
            job = submit["job"]
            submitted_bytes, messages = _redis_bytes(ledger), _queued(ledger)
            self._on_progress(f"{keys:,} keys: status")
            status = cast(StatusTimes, self._act("status", keys, dest, job))
            done_bytes = _done_bytes(ledger, job, keys)
            self._on_progress(f"{keys:,} keys: recover")
            self._act("history", keys, dest, job)
            recover = cast(Recovery, self._act_with_peak("recover", keys, dest, job))
            recovered_bytes = _redis_bytes(ledger)
            self._on_progress(f"{keys:,} keys: cancel, end, retry")
            cancel = cast(Cancellation, self._act("cancel", keys, dest, job))
            end = self._end(ledger, job)
            retry = cast(Retry, self._act_with_peak("retry", keys, dest, job))
            ledger.connection.client.flushdb()  # our own server; the next job starts on an empty one
        return {
            "keys": keys,
            "submit": submit,
            "redis": {
                "submitted_bytes": submitted_bytes,
                "messages": messages,
                "done_bytes": done_bytes,
                "recovered_bytes": recovered_bytes,
            },
            "status": status,
            "recover": recover,
            "cancel": cancel,
            "end": end,
            "retry": retry,
        }

    def child(self, module: str, *arguments: str) -> tuple[dict[str, Any], int]:
        """Run a module that prints one JSON object; return the object and the peak memory of the process in bytes.

        Raises:
            SetupError: the module failed or took longer than an hour.
        """
        log = self._folder / f"{module}.log"
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as process,
        ):
            timer = threading.Timer(_ACTION_SECONDS, process.kill)
            timer.start()
            line, peak = b"", 0
            try:
                line = process.stdout.readline() if process.stdout else b""
                with suppress(ProcessLookupError):  # it failed: the exit code reports it
                    peak = peak_bytes(process.pid)
                process.communicate()  # closes the input, which ends the process
            except BaseException:
                process.kill()
                raise
            finally:
                timer.cancel()
        if process.returncode != 0 or not line or not peak:
            raise SetupError(f"{module} {' '.join(arguments[:1])} failed: {tail(log)}")
        found: dict[str, Any] = json.loads(line)
        return found, peak

    def _act(self, action: str, keys: int, dest: str, job: str = "", jobs: int = 0) -> dict[str, Any]:
        """Let the producer do one action; return what it measured."""
        found = self._act_with_peak(action, keys, dest, job, jobs)
        del found["peak_mib"]
        return found

    def _act_with_peak(self, action: str, keys: int, dest: str, job: str = "", jobs: int = 0) -> dict[str, Any]:
        """Let the producer do one action; return what it measured, and the peak memory of its process."""
        arguments = {"keys": keys, "dest": dest, "job": job, "jobs": jobs}
        found, peak = self.child("producer.bench.submit", action, json.dumps(arguments))
        return found | {"peak_mib": peak / _MIB}

    def recover_all(self, jobs: int, images: int) -> RecoveryOfAll:
        """Measure the recovery of many half-done jobs into an empty Redis."""
        self._on_progress(f"{jobs:,} jobs of {images:,} images: recover all")
        dest = f"s3://{DEFAULT_BUCKET}/lost/"
        self._act("leave_jobs", images, dest, jobs=jobs)
        found = self._act_with_peak("recover_all", images, dest, jobs=jobs)
        return cast(RecoveryOfAll, found)

    def _end(self, ledger: Ledger, job: str) -> JobEnd:
        """Let a steward end the cancelled job, as a worker node does; measure what that takes."""
        began = time.monotonic()
        log = self._folder / "steward.log"
        with log.open("wb") as output:
            steward = subprocess.Popen(
                [sys.executable, "-m", "worker.steward.process"], env=self._environment, stdout=output, stderr=output
            )
        try:
            peak = 0
            while ledger.view(job).status is not JobStatus.CANCELLED:
                if steward.poll() is not None or time.monotonic() - began > _ACTION_SECONDS:
                    raise SetupError(f"the steward did not end the job: {tail(log)}")
                with suppress(ProcessLookupError):  # it has just ended: the next poll reports it
                    peak = max(peak, peak_bytes(steward.pid))
                time.sleep(_POLL_SECONDS)
            return {"wall_seconds": time.monotonic() - began, "steward_peak_mib": peak / _MIB}
        finally:
            steward.terminate()
            steward.wait()


def _redis_bytes(ledger: Ledger) -> int:
    """Return the size of all keys with their values (MEMORY USAGE); buffers of connections are excluded."""
    client = ledger.connection.client
    return sum(int(client.memory_usage(key, samples=0) or 0) for key in client.scan_iter(count=1000))


def _queued(ledger: Ledger) -> int:
    client, prefix = ledger.connection.client, ledger.connection.prefix
    return sum(int(client.llen(redis_keys.queue(prefix, name))) for name in redis_keys.QUEUES)


def _done_bytes(ledger: Ledger, job: str, keys: int) -> int:
    """Return the size of all keys when every image has an outcome and the log holds a full part, not yet written."""
    client, parts = ledger.connection.client, redis_keys.job_keys(ledger.connection.prefix, job)
    client.setrange(parts.images, (keys - 1) // 2, b"\x11")
    for _ in range(min(keys, PART_OUTCOMES)):
        client.xadd(parts.log, {"o": "x" * _LOG_LINE_BYTES})
    used = _redis_bytes(ledger)
    client.delete(parts.images, parts.log)
    return used
