"""A node that runs under faults, with and without the safeguard that a test checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from support import commands, small_jobs
from support.fault_injection import Faults
from support.installation import Installation
from support.job_account import Account, settle
from support.node_processes import Node
from worker.contract.ledger.fleet import Fleet
from worker.contract.ledger.jobs import Ledger


@dataclass(frozen=True)
class FaultRun:
    """One run of a node under faults: its installation, the faults in its processes and the log of its workers."""

    installation: Installation
    faults: Faults
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Added to those of the installation."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every process of the run."""
        return self.installation.environment | dict(self.settings) | self.faults.environment()

    def configured(self, *, settings: Mapping[str, str] | None = None, **faults: Any) -> FaultRun:
        """Return the run with these settings, and these fields of `Faults`, in place of its own."""
        return replace(self, settings={**self.settings, **(settings or {})}, faults=replace(self.faults, **faults))

    @contextmanager
    def node(self) -> Iterator[Node]:
        """Run `worker start`; the block starts once every worker process is up."""
        with commands.workers(self.environment, self.log) as supervisor:
            node = Node(supervisor.pid)
            processes = int(self.environment["MASKMILL_PLAN__PROCESSES"])
            with Ledger(self.installation.settings.redis) as ledger:
                fleet = Fleet(ledger.connection)
                commands.wait_for(
                    lambda: len(fleet.facts()) == processes and node.model_processes(), "workers to be up"
                )
            yield node

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """Open the ledger of the installation."""
        with Ledger(self.installation.settings.redis) as ledger:
            yield ledger

    def submit(self, count: int, *, chunk: int, **how: Any) -> str:
        """Submit `count` small pictures in chunks of `chunk`, see `small_jobs.submit`; return the job's id."""
        return small_jobs.submit(self.installation, count, chunk=chunk, **how)

    def settle(self, job: str, *, seconds: float = 90.0) -> Account:
        """Wait for the end of a job and return its account, see `job_account.settle`."""
        return settle(self.installation, job, self.faults, seconds=seconds)


def run_concurrently(*runs: Callable[[], object]) -> None:
    """Do several runs at the same time, since each of them mostly waits. Raises the first failure."""
    with ThreadPoolExecutor(len(runs)) as threads:
        for future in [threads.submit(run) for run in runs]:
            future.result()
