"""What became of each image of a job, one by one, at any size: from Redis and S3, checked against the ledger."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

from worker.contract import manifest, results, states
from worker.contract.backlog import Backlog
from worker.contract.job import JobView
from worker.contract.ledger import Ledger
from worker.contract.messages import Outcome, OutcomeKind
from worker.contract.objects import ObjectStore, S3Url

_TOLD = 255
_MAX_WAITING = 2 * results.PART_OUTCOMES
"""More only wait where nobody brings them to S3."""


def outcomes(
    store: ObjectStore, ledger: Ledger, view: JobView, kinds: Collection[OutcomeKind] = tuple(OutcomeKind)
) -> Iterator[Outcome]:
    """The outcome that counts of every image that has one, each once, the latest first.

    Of a job that runs, those that it has at the first step; of one that has ended, every image is told about. Memory: a
    byte for each image, one part of `results.PART_OUTCOMES` outcomes, and twice as many that are not in S3 yet.

    Args:
        store: where the outcomes are.
        ledger: knows which of several outcomes of an image counts.
        view: the job.
        kinds: outcomes to tell about.

    Raises:
        ContractError: a part was changed or replaced.
        ServiceError: S3 or Redis did not do their part.
    """
    if view.total is None:
        return
    # First: what goes to S3 in between is met twice, which is better than not at all.
    entries = [] if view.ended else Backlog(ledger.link).log(view.job, _MAX_WAITING)
    waiting = [Outcome.model_validate_json(entry.line) for entry in entries]
    dest, wanted = S3Url.parse(view.options.dest), {states.NUMBERS[kind] for kind in kinds}
    left = bytearray(b"".join(ledger.pieces(view.job, view.total)))
    for outcome in itertools.chain(reversed(waiting), results.newest_first(store, dest, view.job)):
        state = states.NUMBERS[outcome.kind]
        if outcome.index < len(left) and left[outcome.index] == state:
            left[outcome.index] = _TOLD
            if state in wanted:
                yield outcome
    if not view.ended or left.count(_TOLD) == len(left):
        return
    # Cancelled images have no line of their own; nor has one whose line was lost with Redis.
    for index, entry in enumerate(manifest.read(store, dest, view.job, view.total)):
        kind = None if left[index] == _TOLD else states.KINDS[left[index]] or OutcomeKind.CANCELLED
        if kind is not None and states.NUMBERS[kind] in wanted:
            yield Outcome(index=index, key=entry.key, kind=kind)
