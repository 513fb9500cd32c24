"""Work on many jobs where the trouble of one is not that of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from worker.contract.errors import MaskmillError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def each(items: Iterable[Item], work: Callable[[Item], Answer]) -> list[Answer]:
    """Do something for every item, whatever becomes of the others: one job's bucket must not hold up all jobs.

    Raises:
        MaskmillError: the first that was raised, after all others were done.
    """
    answers, troubles = [], []
    for item in items:
        try:
            answers.append(work(item))
        except MaskmillError as error:
            troubles.append(error)
    if troubles:
        raise troubles[0]
    return answers
