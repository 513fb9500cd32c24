"""What commands that read a job's past have in common: the job, also one that Redis has forgotten."""

from __future__ import annotations

import click

from producer.outcomes import recall
from worker.contract.errors import JobNotFound
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

DEST = click.option(
    "--dest",
    metavar="S3URL",
    help="Destination of JOB: reads an ended job that Redis has forgotten from S3 alone.",
)


def find(store: ObjectStore, ledger: Ledger, job: str, dest: str | None) -> JobView:
    """The job as Redis knows it, or as it left itself in S3.

    Raises:
        JobNotFound: there is none.
    """
    if dest is not None:
        return recall(store, S3Url.folder(dest), job)
    try:
        return ledger.view(job)
    except JobNotFound as error:
        raise JobNotFound(f"{error}; one that it has forgotten is found with --dest") from error


def words(ctx: click.Context, param: click.Parameter, values: tuple[str, ...], known: list[str]) -> tuple[str, ...]:
    """Values that may be repeated or separated by commas, each one of those known."""
    found = [word.strip().lower() for value in values for word in value.split(",")]
    for word in found:
        if word not in known:
            raise click.BadParameter(f"{word!r} is none of {', '.join(known)}", ctx, param)
    return tuple(dict.fromkeys(found))
