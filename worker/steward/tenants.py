"""Who shares the workers: jobs are grouped by tenant, so that a thousand jobs of one tenant count as one tenant."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from worker.contract.ledger.records import JobRecord
from worker.contract.s3url import S3Url
from worker.steward.round_memory import RoundMemory

_T = TypeVar("_T")


def tenant_of(dest: S3Url, prefixes: Collection[str] = ()) -> str:
    """Return the tenant of a job: the longest of the prefixes that holds its destination, else its bucket.

    Args:
        dest: destination of the job, which only its tenant may write to.
        prefixes: `bucket/prefix/` of tenants that share a bucket (`MASKMILL_JOBS__TENANTS`).
    """
    place = f"{dest.bucket}/{dest.key}"
    holding = [prefix for prefix in prefixes if place.startswith(f"{prefix.rstrip('/')}/")]
    return max(holding, key=len, default=dest.bucket)


class Turns:
    """The order in which one process looks after all jobs, when it may not reach all of them at once."""

    def __init__(self, prefixes: Collection[str] = ()) -> None:
        """Remember nothing yet; `prefixes` as in `tenant_of`."""
        self._prefixes = prefixes
        self._looks = 0
        self._reached = RoundMemory[int]()
        """Job, or tenant -> the last look in which it, or one of its jobs, was reached."""

        self.complete = True
        """Whether all jobs of the last look were reached."""

    def order(self, jobs: Iterable[JobRecord], first: Callable[[JobRecord], float]) -> list[JobRecord]:
        """Return the jobs so that tenants take turns: the first job of each, then the second of each, and so on.

        Args:
            jobs: in any order.
            first: sorts the jobs of one tenant. Those that were reached longest ago go before the others.
        """
        queues: dict[str, list[JobRecord]] = {}
        for job in jobs:
            queues.setdefault(tenant_of(job.view.options.dest, self._prefixes), []).append(job)
        for queue in queues.values():
            queue.sort(key=lambda job: (self._last(job.view.job), first(job)))
        return _round_robin([queues[name] for name in sorted(queues, key=self._last)])

    def note(self, jobs: Iterable[JobRecord], reached: Collection[str], *, ends_round: bool = True) -> None:
        """End a look: take note of which of its jobs were reached.

        Args:
            jobs: of this look.
            reached: names of jobs.
            ends_round: as in `RoundMemory.keep`.
        """
        self._looks += 1
        tenants = {job.view.job: tenant_of(job.view.options.dest, self._prefixes) for job in jobs}
        self.complete = tenants.keys() <= set(reached)
        known = {name: self._last(name) for name in (*tenants, *tenants.values())}
        now = [name for job, tenant in tenants.items() if job in reached for name in (job, tenant)]
        self._reached.keep(known | dict.fromkeys(now, self._looks), ends_round=ends_round)

    def _last(self, name: str) -> int:
        return self._reached.get(name) or 0


def _round_robin(queues: Sequence[Sequence[_T]]) -> list[_T]:
    rounds = itertools.zip_longest(*([(item,) for item in queue] for queue in queues), fillvalue=())
    return [item for one_round in rounds for found in one_round for item in found]
