"""Fuzz the records of jobs, the indexes and the objects of jobs, beside a real steward that must outlive all of it.

Runs for `FUZZ_SECONDS`, or for `FUZZ_RECORDS` crooked records; by default for a few. In each round a good job is
submitted beside the crooked ones, and must end; the same job without them shows how much they slow it.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

import pytest
from click.testing import CliRunner

from producer.cli import control, jobs
from support.commands import wait_for
from support.crooked import GARBAGE, PARTS, random_change
from support.fault_timing import FAST
from support.jobs import HERE, message, run
from support.scheduler_harness import SchedulerHarness
from support.steward_process import StewardProcess, steward
from worker.contract import redis_keys
from worker.contract.errors import ContractError, MaskmillError
from worker.contract.job import JobStatus, JobView
from worker.contract.messages import JobOptions
from worker.contract.storage import outcome_log

pytestmark = pytest.mark.timeout(0)  # limited by the budget

_ROUND = 40
_MOST_MIB = 200


@dataclass
class Fuzz:
    """Crooked records of one seed, and what became of them."""

    world: SchedulerHarness
    process: StewardProcess
    seed: int = field(default_factory=lambda: secrets.randbits(32))
    records: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    seconds: list[tuple[float, float]] = field(default_factory=list)
    """How long the good job of each round took, and one without crooked records beside it."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def round(self) -> None:
        """Make crooked records and a good job; check that the good one ends, and remove the others."""
        made = [self._make(f"crooked-{self.records + number}") for number in range(_ROUND)]
        self.records += _ROUND
        self._crook_the_shared_keys()
        beside = self._good_job(f"good-{self.records}")
        for view in made:
            self._read_and_remove(view)
        self.seconds.append((beside, self._good_job(f"alone-{self.records}")))

    @property
    def slowdown(self) -> float:
        """How many times as long the good jobs take beside crooked records; median of the rounds."""
        return statistics.median(beside / alone for beside, alone in self.seconds)

    def _good_job(self, job: str) -> float:
        began = time.monotonic()
        good = self.world.submit(6, job=job, dest=job)
        run(self.world.ledger, good, range(good.chunks))
        self._ends(job)
        return time.monotonic() - began

    def _make(self, job: str) -> JobView:
        world, connection = self.world, self.world.ledger.connection
        keys = redis_keys.job_keys(connection.prefix, job)
        if self.random.random() < 0.2:
            view = world.submit(6, job=job, dest=job)
            if self.random.random() < 0.5:
                self._change_an_object(view)
        else:  # without its objects in S3
            world.ledger.create(job, JobOptions(source=f"s3://{world.bucket}/in/", dest=f"s3://{world.bucket}/{job}/"))
            world.ledger.seal(job, total=6, chunk_images=3, size=30)
            view = world.ledger.view(job)
        with contextlib.suppress(MaskmillError):
            random_change(self.random)(connection.client, keys)
        return view

    def _change_an_object(self, view: JobView) -> None:
        body = self.random.choice(list(PARTS.values()))
        part = outcome_log.results_folder(view.options.dest, view.job) / f"0000-{1:015d}-{0:06d}-{1:06d}.jsonl.gz"
        place = self.random.choice([part, self.world.first_part(view.job, view.job)])
        self.world.store.put(place, body, content_type="x")

    def _crook_the_shared_keys(self) -> None:
        connection = self.world.ledger.connection
        garbage = self.random.choice(GARBAGE) or "empty"
        connection.client.sadd(redis_keys.active(connection.prefix), garbage, "unknown-job")
        connection.client.zadd(redis_keys.jobs(connection.prefix), {garbage: self.random.uniform(0, 1e10)})
        worker = f"worker-{self.random.randint(0, 9)}@node"
        connection.client.hset(redis_keys.worker_facts(connection.prefix), worker, garbage)
        connection.client.hset(redis_keys.worker_facts(connection.prefix), f"start-failure:{worker}", garbage)

    def _ends(self, job: str) -> None:
        def ended() -> bool:
            assert self.process.running, self._report()
            return self.world.ledger.view(job).status is JobStatus.FINISHED

        wait_for(ended, f"{job}; {self._report()}", 120)

    def _read_and_remove(self, view: JobView) -> None:
        """Read a job as a user, a worker and a producer do; only documented errors may come of it."""
        ledger, chunks = self.world.ledger, self.world.chunks
        fate = "readable"
        for read in (
            lambda: ledger.view(view.job),
            lambda: ledger.failures(view.job),
            lambda: chunks.start(message(view, 0), HERE),
            lambda: chunks.options_if_unstarted(message(view, 1)),
            lambda: ledger.cancel(view.job),
        ):
            try:
                read()
            except ContractError as error:
                fate = error.code
        self.fates[fate] += 1
        _call(jobs.status_command, view.job, "--json")
        _call(jobs.list_command, "--limit", "3", "--json")
        ledger.forget(view.job)

    def _report(self) -> str:
        return f"seed {self.seed}, {self.records} records, log: {self.process.log[-3000:]}"


def _call(command, *args: str) -> None:
    with contextlib.suppress(MaskmillError):
        CliRunner().invoke(command, [*args], catch_exceptions=False, standalone_mode=False)


def test_records(world, installation):
    wanted = int(os.environ.get("FUZZ_RECORDS", "0"))
    deadline = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "5"))
    with steward(installation.environment | FAST) as process:
        fuzz = Fuzz(world, process)
        while fuzz.records < wanted or (not wanted and (not fuzz.records or time.monotonic() < deadline)):
            fuzz.round()
        _call(control.forget_command, "--unreadable")
        peak = process.peak_mib
        print(  # noqa: T201 -- shown with `-s`
            f"{fuzz.records} crooked records, 0 processes ended, peak {peak:.0f} MiB, seed {fuzz.seed}, "
            f"{dict(fuzz.fates)}, {process.log.count('event=job_failed')} failures of single jobs, "
            f"{process.log.count('internal_error')} of them unexpected, "
            f"a good job takes {fuzz.slowdown:.2f} times as long"
        )
        assert process.running and peak < _MOST_MIB
        assert "internal_error" not in process.log, fuzz._report()
