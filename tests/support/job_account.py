"""The account of a job after a fault: what must always hold, what is left behind, and what is lost."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from support import commands
from support.fault_injection import Faults
from support.fault_timing import RECONCILED_WITHIN, SLACK
from support.installation import Installation
from support.jobs import image_states
from worker.contract import output_names, redis_keys
from worker.contract.job import ENDED, JobStatus, JobView
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import OutcomeKind
from worker.contract.storage.s3 import ObjectStore


@dataclass(frozen=True)
class Account:
    """The end of a job, after `settle` has asserted everything that must always hold."""

    view: JobView
    executions: Counter[str]

    @property
    def repeated(self) -> int:
        """Executions beyond the first of each image."""
        return self.executions.total() - len(self.executions)


def progress(ledger: Ledger, job: str, at_least: int, seconds: float = 60.0) -> JobView:
    """Wait until `at_least` images of a job have an outcome."""
    commands.wait_for(lambda: ledger.view(job).done >= at_least, f"{at_least} images of job {job}", seconds)
    return ledger.view(job)


def settle(installation: Installation, job: str, faults: Faults | None = None, *, seconds: float = 60.0) -> Account:
    """Wait for the end of a job and return its account.

    Asserts what must hold after every fault: each image has an outcome, the counters equal the states, every image
    that is ok has its output, and neither the broker nor the ledger keeps anything of the job.
    """
    with Ledger(installation.settings.redis) as ledger, ObjectStore(installation.settings.s3) as store:
        commands.wait_for(lambda: ledger.view(job).status in ENDED, f"job {job} to end", seconds)
        view = ledger.view(job)
        assert view.status is JobStatus.FINISHED, view
        states = Counter(image_states(ledger, job, view.total or 0))
        assert None not in states, f"{states[None]} images were lost"
        assert states == +Counter({kind: getattr(view, kind.value) for kind in OutcomeKind}), view
        folder = view.options.dest
        outputs = [item.key for item in store.list(folder) if not item.key.startswith(output_names.JOB_PREFIX)]
        assert len(outputs) == view.ok + view.skipped
        # The last acknowledgement follows the last outcome.
        commands.wait_for(lambda: broker_empty(ledger), "the broker to be empty", RECONCILED_WITHIN + SLACK)
        assert not residue(ledger, job)
    return Account(view, faults.executions() if faults else Counter())


def broker_empty(ledger: Ledger) -> bool:
    """Return whether no message is in a queue or held by a worker."""
    client, prefix = ledger.connection.client, ledger.connection.prefix
    held = client.hlen(redis_keys.unacked(prefix)) + client.zcard(f"{prefix}unacked_index")
    return held == 0 and Backlog(ledger.connection).queued() == 0


def residue(ledger: Ledger, job: str) -> dict[str, int]:
    """Return the keys of an ended job that should be empty but are not, with their sizes."""
    keys, client = redis_keys.job_keys(ledger.connection.prefix, job), ledger.connection.client
    sizes = {
        "outstanding": client.zcard(keys.outstanding),
        "running": client.hlen(keys.running),
        "attempts": client.hlen(keys.attempts),
        "suspects": client.hlen(keys.suspects),
        "returned": client.scard(keys.returned),
        "log": client.xlen(keys.log),
    }
    return {name: size for name, size in sizes.items() if size}


def missing(installation: Installation, job: str) -> list[int]:
    """Return the chunks that were published, have not ended and have no message anywhere."""
    with Ledger(installation.settings.redis) as ledger:
        backlog, epoch = Backlog(ledger.connection), ledger.view(job).epoch
        tasks = {redis_keys.task_id(job, epoch, chunk): chunk for chunk in backlog.silent(job, 0)}
        return [tasks[task] for task in tasks.keys() - backlog.in_broker(tasks.keys())]


def longest_absences(installation: Installation, job: str, seconds: float = 90.0) -> dict[int, float]:
    """Watch a job to its end and return chunk -> the longest time that it was missing, in seconds."""
    since: dict[int, float] = {}
    longest: dict[int, float] = {}
    deadline = time.monotonic() + seconds
    with Ledger(installation.settings.redis) as ledger:
        while not ledger.view(job).ended and time.monotonic() < deadline:
            gone = missing(installation, job)
            since = {chunk: since.get(chunk, time.monotonic()) for chunk in gone}
            for chunk, first in since.items():
                longest[chunk] = max(longest.get(chunk, 0.0), time.monotonic() - first)
            time.sleep(0.05)
    return longest


def stuck(installation: Installation, job: str, seconds: float) -> JobView:
    """Wait until a job has made no progress for `seconds`. Asserts that it does not end: a control run must lose work.

    Returns:
        The job as it stands.
    """
    with Ledger(installation.settings.redis) as ledger:
        before, since = ledger.view(job), time.monotonic()
        while time.monotonic() - since < seconds:
            now = ledger.view(job)
            assert not now.ended, "the control run lost nothing: the test proves nothing"
            if now.done != before.done:
                before, since = now, time.monotonic()
            time.sleep(0.1)
        return before
