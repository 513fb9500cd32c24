"""`worker bench submit`: a job of a million images or more without a picture, beside plain Celery.

    embedded Redis and S3 (real ones, in a folder that is thrown away)
    └── for each number of keys
        producer.bench.submit   submit, status, history, recover, cancel, retry: each a process of its own
        worker.steward.process       brings the cancelled job to its end
    worker.bench.plain_celery    one message per image, as many as `plain_messages`

What is said of a million messages of plain Celery is extrapolated from those; each costs the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from worker.bench.harness import machine as machine_facts
from worker.bench.harness.process import tail
from worker.contract import redis_keys
from worker.contract.errors import SetupError
from worker.contract.job import JobStatus
from worker.contract.ledger.jobs import Ledger
from worker.contract.settings import RedisSettings
from worker.contract.storage.outcome_log import PART_OUTCOMES
from worker.cpu import topology
from worker.standalone.services import DEFAULT_BUCKET, Standalone

SCHEMA_VERSION = 1

_ACTION_SECONDS = 3600.0
_POLL_SECONDS = 0.05
_LOG_LINE_BYTES = 160
"""Of an outcome with one output, on average."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to measure."""

    keys: tuple[int, ...]
    plain_messages: int = 50_000


def run(options: Options, say: Say) -> dict[str, Any]:
    """Measure.

    Args:
        options: what to measure.
        say: told what happens, one short line at a time.

    Returns:
        The report, ready for JSON; see `submit_report`.

    Raises:
        SetupError: a part of it did not work.
    """
    before = machine_facts.load_average()
    with (
        tempfile.TemporaryDirectory(prefix="maskmill-bench-") as folder,
        Standalone(Path(folder) / "state") as services,
    ):
        bench = _Bench(services, Path(folder), say)
        say(f"plain Celery, {options.plain_messages:,} messages")
        plain = bench.child("worker.bench.plain_celery", str(options.plain_messages))
        results = [bench.measure(keys) for keys in options.keys]
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": "submit",
        "machine": machine_facts.facts(topology.read()),
        "load_average_before": before,
        "load_average_after": machine_facts.load_average(),
        "results": results,
        "plain_celery": plain | {"redis_bytes_per_image": plain["redis_bytes"] / max(1, plain["messages"])},
    }


class _Bench:
    """Over one pair of services."""

    def __init__(self, services: Standalone, folder: Path, say: Say) -> None:
        self._folder, self._say = folder, say
        scrubbed = {name: value for name, value in os.environ.items() if not name.startswith("MASKMILL_")}
        self._environment = scrubbed | services.environment()
        password = SecretStr(self._environment["MASKMILL_REDIS__PASSWORD"])
        self._redis = RedisSettings(url=services.redis_url, password=password)

    def measure(self, keys: int) -> dict[str, Any]:
        """One job of so many keys, from its submission to a retry after its end."""
        dest = f"s3://{DEFAULT_BUCKET}/{keys}/"
        with Ledger(self._redis, client_name="maskmill-bench") as ledger:
            found: dict[str, Any] = {"keys": keys}
            self._say(f"{keys:,} keys: submit")
            found["submit"] = self._act("submit", keys, dest)
            job = found["submit"]["job"]
            found["redis"] = {"submitted_bytes": _bytes(ledger), "messages": _queued(ledger)}
            self._say(f"{keys:,} keys: status")
            found["status"] = self._act("status", keys, dest, job)
            found["redis"] |= {"done_bytes": _done_bytes(ledger, job, keys)}
            self._say(f"{keys:,} keys: recover")
            self._act("history", keys, dest, job)
            found["recover"] = self._act("recover", keys, dest, job)
            found["redis"] |= {"recovered_bytes": _bytes(ledger)}
            self._say(f"{keys:,} keys: cancel, end, retry")
            found["cancel"] = self._act("cancel", keys, dest, job)
            found["end"] = self._end(ledger, job)
            found["retry"] = self._act("retry", keys, dest, job)
            ledger.connection.client.flushdb()  # it is ours; the next job begins on an empty server
        return found

    def child(self, module: str, *arguments: str) -> dict[str, Any]:
        """Run a module that prints one JSON object.

        Raises:
            SetupError: it failed.
        """
        log = self._folder / f"{module}.log"
        with log.open("wb") as errors:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=_ACTION_SECONDS,
                check=False,
            )
        if done.returncode != 0:
            raise SetupError(f"{module} {' '.join(arguments[:1])} failed: {tail(log)}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _act(self, action: str, keys: int, dest: str, job: str = "") -> dict[str, Any]:
        return self.child("producer.bench.submit", action, json.dumps({"keys": keys, "dest": dest, "job": job}))

    def _end(self, ledger: Ledger, job: str) -> dict[str, Any]:
        """A steward of a node closes the job: what a worker node spends on the end of a job, whatever its size."""
        began = time.monotonic()
        log = self._folder / "steward.log"
        with log.open("wb") as output:
            steward = subprocess.Popen(
                [sys.executable, "-m", "worker.steward.process"], env=self._environment, stdout=output, stderr=output
            )
        try:
            peak = 0.0
            while ledger.view(job).status is not JobStatus.CANCELLED:
                if steward.poll() is not None or time.monotonic() - began > _ACTION_SECONDS:
                    raise SetupError(f"the steward did not end the job: {tail(log)}")
                peak = max(peak, _peak_mib(steward.pid))
                time.sleep(_POLL_SECONDS)
            return {"wall_seconds": time.monotonic() - began, "steward_peak_mib": peak}
        finally:
            steward.terminate()
            steward.wait()


def _bytes(ledger: Ledger) -> int:
    """Of all keys with their values, as the server counts them (MEMORY USAGE); buffers of connections left out."""
    client = ledger.connection.client
    return sum(int(client.memory_usage(key, samples=0) or 0) for key in client.scan_iter(count=1000))


def _queued(ledger: Ledger) -> int:
    client, prefix = ledger.connection.client, ledger.connection.prefix
    return sum(int(client.llen(redis_keys.queue(prefix, name))) for name in redis_keys.QUEUES)


def _done_bytes(ledger: Ledger, job: str, keys: int) -> int:
    """Memory when every image has its outcome and a full part of the log waits to be written."""
    client, parts = ledger.connection.client, redis_keys.job_keys(ledger.connection.prefix, job)
    client.setrange(parts.images, (keys - 1) // 2, b"\x11")
    for _ in range(min(keys, PART_OUTCOMES)):
        client.xadd(parts.log, {"o": "x" * _LOG_LINE_BYTES})
    used = _bytes(ledger)
    client.delete(parts.images, parts.log)
    return used


def _peak_mib(pid: int) -> float:
    """Of a process since it began (proc(5), VmHWM)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
