"""Commands that control a job: `producer cancel`, `pause`, `resume`, `retry`, `recover`, `forget`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import click

from producer.cli import progress
from producer.cli.jobs import JSON, TIMEOUT, WAIT, follow_to_end
from producer.forget import forget, forget_unreadable
from producer.recover import recover
from producer.recover_all import Finding, FoundJob, recover_all
from producer.retry import retry
from producer.wording import counts_in_words
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

_FORGET_LIMIT = 10_000
"""Jobs that `forget --unreadable` looks at."""


@click.command("cancel", epilog="\b\nExample:\n  producer cancel 20260131-120000-a1b2c3 --reason 'wrong prefix'")
@click.argument("job")
@click.option(
    "--reason",
    default="cancelled by hand",
    show_default=True,
    help="Why the job is cancelled; shown by `producer status`.",
)
@WAIT
@TIMEOUT
@JSON
def cancel_command(*, job: str, reason: str, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Stop JOB: images in flight are finished, no new image starts. Existing outputs are kept.

    The lists of outcomes are written as for any other job. To run the remaining images later, use
    `producer retry JOB --cancelled`.
    """
    with Ledger(settings.load().redis) as ledger:
        return _show_and_wait(ledger, ledger.cancel(job, reason), wait=wait, timeout=timeout, as_json=as_json)


@click.command("pause", epilog="\b\nExample:\n  producer pause 20260131-120000-a1b2c3")
@click.argument("job")
@JSON
def pause_command(*, job: str, as_json: bool) -> int:
    """Start no new image of JOB until `producer resume`. Images in flight are finished."""
    with Ledger(settings.load().redis) as ledger:
        return _show_and_wait(ledger, ledger.pause(job), wait=False, timeout=None, as_json=as_json)


@click.command("resume", epilog="\b\nExample:\n  producer resume 20260131-120000-a1b2c3 --wait")
@click.argument("job")
@WAIT
@TIMEOUT
@JSON
def resume_command(*, job: str, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Continue a paused JOB."""
    with Ledger(settings.load().redis) as ledger:
        return _show_and_wait(ledger, ledger.resume(job), wait=wait, timeout=timeout, as_json=as_json)


@click.command(
    "retry",
    epilog="\b\nExamples:\n  producer retry 20260131-120000-a1b2c3 --failed --wait\n"
    "  producer retry 20260131-120000-a1b2c3 --cancelled",
)
@click.argument("job")
@click.option("--failed", is_flag=True, help="Run images whose outcome is failed or dead.")
@click.option(
    "--cancelled", is_flag=True, help="Run images that were not done because the job was cancelled or stopped."
)
@WAIT
@TIMEOUT
@JSON
def retry_command(*, job: str, failed: bool, cancelled: bool, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Run images of an ended JOB again.

    Without --failed or --cancelled, run both kinds of images.
    """
    if not failed and not cancelled:
        failed = cancelled = True
    config = settings.load()
    with Ledger(config.redis) as ledger, ObjectStore(config.s3) as store:
        view = retry(store, ledger, job, failed=failed, cancelled=cancelled)
        if view is None:
            console.err.print("nothing to do: the job has no such images")
            return Exit.OK
        return _show_and_wait(ledger, view, wait=wait, timeout=timeout, as_json=as_json)


@click.command(
    "recover",
    epilog="\b\nExamples:\n  producer recover 20260131-120000-a1b2c3 s3://shop/masks/ --wait\n"
    "  producer recover --all s3://shop/ s3://press/cutouts/ --dry-run",
)
@click.argument("places", nargs=-1, required=True, metavar="[JOB] DEST...")
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Rebuild every job under DEST that had not ended; DEST may be a prefix above several destinations.",
)
@click.option("--dry-run", is_flag=True, help="With --all: only say what would be done.")
@WAIT
@TIMEOUT
@JSON
def recover_command(
    *, places: tuple[str, ...], every: bool, dry_run: bool, wait: bool, timeout: float | None, as_json: bool
) -> int:
    """Rebuild JOB, which Redis has lost, from its files in S3 under DEST, and continue it.

    With --all, list everything under each DEST and rebuild all jobs that had not ended, one line per job. Jobs that
    have ended and jobs that Redis has are left alone; paused jobs run. The exit code is 1 if a job could not be
    recovered.
    """
    if every and wait:
        raise click.UsageError("--wait requires a single JOB; follow the others with `producer list`")
    if dry_run and not every:
        raise click.UsageError("--dry-run requires --all")
    config = settings.load()
    with Ledger(config.redis) as ledger, ObjectStore(config.s3) as store:
        if every:
            found = recover_all(store, ledger, [S3Url.folder(place) for place in places], dry_run=dry_run)
            return _show_found(found, dry_run=dry_run, as_json=as_json)
        if len(places) != 2:  # noqa: PLR2004 -- JOB and DEST
            raise click.UsageError("name a JOB and its DEST, or give --all and destinations")
        job, dest = places
        view = recover(store, ledger, S3Url.folder(dest), job)
        return _show_and_wait(ledger, view, wait=wait, timeout=timeout, as_json=as_json)


def _show_found(found: Iterable[FoundJob], *, dry_run: bool, as_json: bool) -> int:
    """Print a line for each job, and the numbers at the end."""
    numbers: Counter[Finding] = Counter()
    images = done = 0
    for each in found:
        numbers[each.finding] += 1
        images, done = images + each.total, done + each.done
        if as_json:
            facts = {"job": each.job, "dest": str(each.dest), "finding": each.finding.value, "reason": each.reason}
            console.print_json(facts | {"total": each.total, "done": each.done, "left": each.total - each.done})
        else:
            console.out.print(_found_in_words(each, dry_run=dry_run), markup=False, soft_wrap=True)
    if as_json:
        counts = {finding.value: numbers[finding] for finding in Finding}
        console.print_json({"jobs": counts, "total": images, "done": done, "left": images - done, "dry_run": dry_run})
    else:
        jobs = ", ".join(f"{numbers[finding]} {finding.value}" for finding in Finding if numbers[finding])
        left = f"; {images:,} images, {done:,} done, {images - done:,} left" if numbers[Finding.RECOVERED] else ""
        told = f"{jobs or 'no job found'}{left}" + (" (dry run: nothing was written)" if dry_run else "")
        console.err.print(told, markup=False, soft_wrap=True)
    return Exit.SETUP if numbers[Finding.UNREADABLE] + numbers[Finding.NOT_SUBMITTED] else Exit.OK


def _found_in_words(found: FoundJob, *, dry_run: bool) -> str:
    if found.finding is Finding.RECOVERED:
        what = "would be recovered" if dry_run else "recovered"
        counts = f": {found.total:,} images, {found.done:,} done, {found.total - found.done:,} left"
    else:
        what, counts = found.finding.value, f": {found.reason}" if found.reason else ""
    return f"{found.job} {found.dest} {what}{counts}"


@click.command(
    "forget",
    epilog="\b\nExamples:\n  producer forget 20260131-120000-a1b2c3\n  producer forget --unreadable",
)
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option("--unreadable", is_flag=True, help=f"All jobs, of the newest {_FORGET_LIMIT:,}, that cannot be read.")
@JSON
def forget_command(*, jobs: tuple[str, ...], unreadable: bool, as_json: bool) -> int:
    """Remove JOB from Redis: a job that has ended, or whose record cannot be read.

    Its outputs and its files in S3 stay: `producer results JOB --dest DEST` still reads an ended job, and `producer
    recover JOB DEST` rebuilds one whose record was damaged.
    """
    if not jobs and not unreadable:
        raise click.UsageError("name a job, or give --unreadable")
    with Ledger(settings.load().redis) as ledger:
        forgotten = [job.job for job in forget_unreadable(ledger, _FORGET_LIMIT)] if unreadable else []
        for job in jobs:
            forget(ledger, job)
            forgotten.append(job)
    for job in forgotten:
        if as_json:
            console.print_json({"job": job, "status": "forgotten"})
        else:
            console.out.print(f"job {job} is forgotten", markup=False, soft_wrap=True)
    if not forgotten:
        console.err.print("nothing to do: all jobs can be read")
    return Exit.OK


def _show_and_wait(ledger: Ledger, view: JobView, *, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Print the new state of the job, then follow the job if requested."""
    if as_json or progress.is_followed_by_lines(wait=wait):
        left = None if view.total is None else view.total - view.done
        counts = {"done": view.done, "cancelled": view.cancelled, "left": left}
        console.print_json({"job": view.job, "status": view.status.value} | counts)
    else:
        console.out.print(f"job [bold]{view.job}[/] {view.status.value}: {counts_in_words(view)}", soft_wrap=True)
    if not wait or view.ended:
        return Exit.OK
    return follow_to_end(ledger, view.job, timeout=timeout, as_json=as_json)
