"""Options shared by the commands that read a job which Redis may have forgotten."""

from __future__ import annotations

import click

from producer.outcomes import read_ended_job
from worker.contract.errors import JobNotFound
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

DEST = click.option(
    "--dest",
    metavar="S3URL",
    help="Destination of JOB. Reads the job, which must have ended, from S3 alone; needed if Redis has forgotten it.",
)


def find_job(store: ObjectStore, ledger: Ledger, job: str, dest: str | None) -> JobView:
    """Return the job from its job summary under `dest`, or from Redis if `dest` is None.

    Raises:
        JobNotFound: there is no such job.
    """
    if dest is not None:
        return read_ended_job(store, S3Url.folder(dest), job)
    try:
        return ledger.view(job)
    except JobNotFound as error:
        raise JobNotFound(f"{error}; if Redis has forgotten the job, give its destination with --dest") from error


def split_choices(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...], choices: list[str]
) -> tuple[str, ...]:
    """Split the values of an option at commas and check that each is one of the choices.

    Raises:
        BadParameter: a value is not one of the choices.
    """
    chosen = [word.strip().lower() for value in values for word in value.split(",")]
    for word in chosen:
        if word not in choices:
            raise click.BadParameter(f"{word!r} is not one of {', '.join(choices)}", ctx, param)
    return tuple(dict.fromkeys(chosen))
