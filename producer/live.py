"""What is at work now: live workers, and where the time of a job's last images went."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.fleet import Fleet, WorkerFacts
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import Outcome

_LAST_IMAGES = 200


def workers(ledger: Ledger) -> list[WorkerFacts]:
    """Live worker processes by name; one that is still loading its model is not among them."""
    return sorted(Fleet(ledger.connection).facts(), key=lambda worker: worker.name)


def stage_shares(ledger: Ledger, job: str) -> dict[str, float]:
    """Share of each stage in the time of the last images of a job, largest first, in sum 1.

    Stages of different images overlap, so a share is of time spent, not of time passed. Empty if there is no recent
    outcome: none yet, or all are in S3 already.
    """
    entries = itertools.islice(Backlog(ledger.connection).recent(job, _LAST_IMAGES), _LAST_IMAGES)
    return shares(Outcome.model_validate_json(entry.line).stages for entry in entries)


def shares(stages: Iterable[dict[str, float]]) -> dict[str, float]:
    """Seconds of the stages of some images, as shares of their sum."""
    spent: Counter[str] = Counter()
    for one in stages:
        spent.update(one)
    total = spent.total()
    return {stage: seconds / total for stage, seconds in spent.most_common()} if total > 0 else {}


def in_words(live: Iterable[WorkerFacts]) -> str:
    """`3 workers: 2 on 16 cores with birefnet_lite 1024 int8 (2 streams x 8 threads), 1 on ...`."""
    kinds: Counter[tuple[int, str]] = Counter(
        (
            len(worker.cpus),
            f"{worker.model} {worker.size} {worker.precision} ({worker.streams} x {worker.threads // worker.streams})",
        )
        for worker in live
    )
    if not kinds:
        return "no live worker: `worker start` on a node starts some"
    told = (f"{count} on {cores} cores with {what}" for (cores, what), count in kinds.most_common())
    return f"{kinds.total()} live worker{'' if kinds.total() == 1 else 's'}: {'; '.join(told)}"
