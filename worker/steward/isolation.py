"""Run an action for many jobs so that a failure of one does not affect the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from worker.contract.errors import CALLER_ERRORS, MaskmillError, ServiceError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def run_all(items: Iterable[Item], action: Callable[[Item], Answer]) -> list[Answer]:
    """Call `action` for every item, even if it fails for some: one job's bucket must not block all jobs.

    Returns:
        The answers in the order of the items.

    Raises:
        MaskmillError: the first one that an action raised, after all items are done.
    """
    answers, errors = [], []
    for item in items:
        try:
            answers.append(action(item))
        except MaskmillError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return answers


def passes(error: ServiceError) -> bool:
    """Return whether an error may pass, or concerns only this process, so that it says nothing about a job."""
    return error.retryable or isinstance(error, CALLER_ERRORS)
