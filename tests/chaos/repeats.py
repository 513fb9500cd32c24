"""Find out from the log of S3 why inputs were read, and outputs written, more than once.

Each request names the process that made it, and each job has inputs of its own. So of two reads of one input, the first
was in vain, and the cause is looked for between the two: first a fault of the process that read, then one of its host,
then trouble that S3 gave it, then Redis and the clocks.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from chaos.inject import Injected
from chaos.load import Job, decodable
from chaos.s3_log import Request

NO_FAULT = "no fault"
PAUSED = "no fault, but the job was paused"

_LASTING_SECONDS = 20.0
"""A failover or a step of a clock has effects for this time: leases end early, chunks are published again."""

_LOOK_SECONDS = 5.0
"""Longest time between the look for outputs and the read of the input."""

_WAKING_SECONDS = 5.0
"""Longest time after a pause until a process has begun what it was about to make."""

_STORED_SECONDS = 0.5
"""Longest time until an output that was passed on can be seen."""

_PROCESSES = ("model_process-", "consumer-", "supervisor-")
"""Faults of processes that hold images."""


@dataclass(frozen=True)
class Repeat:
    """A read of an input, or a write of an output, that was not the first."""

    cause: str
    """Kind of fault; `PAUSED` or `NO_FAULT` if there is none that explains it."""

    written: bool
    """Whether the output existed when the image began again. A write without it was late: both were under way."""

    paths: tuple[str, str] = ("", "")
    """Of the input and of the output, `/bucket/key`."""


def find(log: Iterable[Request], jobs: Sequence[Job], faults: Sequence[Injected]) -> tuple[list[Repeat], list[Repeat]]:
    """Return the repeated reads of inputs, and the repeated writes of outputs."""
    passed: dict[tuple[str, str], list[Request]] = defaultdict(list)
    troubled = []
    for request in log:
        if request.trouble:
            troubled.append(request)
        else:
            passed[request.method, request.path].append(request)
    causes = _Causes(faults, troubled)
    reads, writes = [], []
    for job in jobs:
        for index in range(job.images):
            paths = (
                f"/{job.source.bucket}/{job.source.key}{index:04d}.jpg",
                f"/{job.dest.bucket}/{job.dest.key}{index:04d}.png",
            )
            puts, gets = passed.get(("PUT", paths[1]), []), passed.get(("GET", paths[0]), [])
            first_written = puts[0].at if puts and decodable(job.images, index) else float("inf")
            otherwise = PAUSED if "pause" in job.actions else NO_FAULT
            for pair in itertools.pairwise(gets):
                reads.append(Repeat(causes.of_read(*pair) or otherwise, first_written < pair[1].at, paths))
            heads = passed.get(("HEAD", paths[1]), [])
            for pair in itertools.pairwise(puts):
                needless = _is_needless(gets, heads, *pair) and not causes.was_away(*pair)
                writes.append(Repeat(causes.of_write(*pair) or otherwise, needless, paths))
    return reads, writes


def stories(writes: Sequence[Repeat], log: Iterable[Request]) -> dict[str, list[str]]:
    """Return for each output that was made again all requests for it and its input, with seconds since the first."""
    found: dict[str, list[Request]] = {write.paths[1]: [] for write in writes if write.written}
    inputs = {write.paths[0]: write.paths[1] for write in writes if write.written}
    for request in log:
        output = inputs.get(request.path, request.path)
        if output in found:
            found[output].append(request)
    return {
        output: [
            f"{one.at - requests[0].at:.2f} {one.method} {one.host} {sorted(one.pids)} {one.trouble}".strip()
            for one in requests
        ]
        for output, requests in found.items()
    }


def table(reads: Sequence[Repeat], writes: Sequence[Repeat], faults: Sequence[Injected]) -> list[dict[str, Any]]:
    """Return for each kind of fault how often it happened, and the repeats that it caused."""
    none = {PAUSED, NO_FAULT}
    kinds = sorted({fault.kind for fault in faults} | {repeat.cause for repeat in (*reads, *writes)} - none)
    rows = []
    for kind in [*kinds, PAUSED, NO_FAULT]:
        times = sum(fault.kind == kind for fault in faults)
        ours = [repeat for repeat in reads if repeat.cause == kind]
        rows.append(
            {
                "kind": kind,
                "times": times,
                "read_again": len(ours),
                "per_fault": round(len(ours) / times, 2) if times else None,
                "output_existed": sum(repeat.written for repeat in ours),
                "written_again": sum(repeat.cause == kind for repeat in writes),
                "made_again": sum(repeat.cause == kind and repeat.written for repeat in writes),
            }
        )
    return rows


def per_kill(rows: Sequence[Mapping[str, Any]], kinds: Iterable[str]) -> tuple[int, int]:
    """Return how many processes that hold images were killed, and the inputs read again because of it."""
    ours = [row for row in rows if row["kind"] in kinds and row["kind"].startswith(_PROCESSES)]
    return sum(row["times"] for row in ours), sum(row["read_again"] for row in ours)


def _is_needless(gets: Sequence[Request], heads: Sequence[Request], first: Request, second: Request) -> bool:
    """Return whether the process of the second write began after the first, although it could have seen the output."""
    began = next((get for get in gets if first.at < get.at < second.at and get.pids == second.pids), None)
    if began is None:
        return False
    # It had looked, and the output came only then.
    looks = (head.at for head in heads if head.pids == second.pids)
    return not any(began.at - _LOOK_SECONDS < at < first.at + _STORED_SECONDS for at in looks)


class _Causes:
    """The faults of a run, to look for the one between two requests."""

    def __init__(self, faults: Sequence[Injected], troubled: Sequence[Request]) -> None:
        self._faults = sorted(faults, key=lambda fault: fault.moment)
        self._troubled = troubled

    def of_read(self, first: Request, second: Request) -> str:
        """Return the kind of fault for which `first` was in vain and `second` followed; empty without one."""
        return next(self._candidates(first.at, second.at, first.pids, {first.host}), "")

    def of_write(self, first: Request, second: Request) -> str:
        """Return the kind of fault for which both wrote; empty without one. Either may have been the late one."""
        pids, hosts = first.pids | second.pids, {first.host, second.host}
        return next(self._candidates(first.at - _LASTING_SECONDS, second.at, pids, hosts), "")

    def was_away(self, first: Request, second: Request) -> bool:
        """Return whether the process of the second write was paused or cut off when the first was made, or just before.

        By then another process has the chunk. The process that wakes up continues the chunk until the ledger refuses an
        outcome.
        """
        around = [fault for fault in self._faults if fault.moment < first.at < fault.ends + _WAKING_SECONDS]
        return any(
            (fault.kind.endswith("-pause") and fault.pid in second.pids)
            or (fault.kind == "network-cut" and fault.victim == second.host)
            for fault in around
        )

    def _candidates(self, after: float, before: float, pids: Set[int], hosts: Set[str]) -> Iterator[str]:
        between = [fault for fault in self._faults if after < fault.ends and fault.moment < before]
        yield from (fault.kind for fault in between if fault.pid in pids and fault.moment > after)
        yield from (fault.kind for fault in between if fault.pid in pids)
        yield from (fault.kind for fault in between if fault.kind.startswith("network-") and fault.victim in hosts)
        yield from (f"s3-{one.trouble}" for one in self._troubled if after <= one.at < before and one.pids & pids)
        lasting = [fault for fault in self._faults if after - _LASTING_SECONDS < fault.moment < before]
        for roles in (("failover-", "redis-"), ("clock-",)):
            yield from (fault.kind for fault in reversed(lasting) if fault.kind.startswith(roles))
