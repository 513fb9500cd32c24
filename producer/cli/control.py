"""`producer cancel`, `pause`, `resume`, `retry`, `recover`."""

from __future__ import annotations

import click

from producer.cli.jobs import follow_to_the_end
from producer.recover import recover
from producer.retry import retry
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.s3url import S3Url
from worker.contract.storage.s3 import ObjectStore

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
_WAIT = click.option("--wait", is_flag=True, help="Stay until the job ends; the exit code tells how.")
_TIMEOUT = click.option("--timeout", type=click.FloatRange(min=0), help="With --wait: seconds to stay at most.")


@click.command("cancel", epilog="\b\nExample:\n  producer cancel 20260131-120000-a1b2c3 --reason 'wrong prefix'")
@click.argument("job")
@click.option("--reason", default="cancelled by hand", show_default=True, help="For whoever asks later.")
@_WAIT
@_TIMEOUT
@_JSON
def cancel_command(*, job: str, reason: str, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Stop JOB: images in work are finished, no further one begins. Outputs that exist stay.

    Its lists are written as for any job; `producer retry JOB --cancelled` does the rest later.
    """
    with Ledger(settings.load().redis) as ledger:
        return _tell(ledger, ledger.cancel(job, reason), wait=wait, timeout=timeout, as_json=as_json)


@click.command("pause", epilog="\b\nExample:\n  producer pause 20260131-120000-a1b2c3")
@click.argument("job")
@_JSON
def pause_command(*, job: str, as_json: bool) -> int:
    """Begin no further image of JOB until `producer resume`. Images in work are finished."""
    with Ledger(settings.load().redis) as ledger:
        return _tell(ledger, ledger.pause(job), wait=False, timeout=None, as_json=as_json)


@click.command("resume", epilog="\b\nExample:\n  producer resume 20260131-120000-a1b2c3 --wait")
@click.argument("job")
@_WAIT
@_TIMEOUT
@_JSON
def resume_command(*, job: str, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Go on with a paused JOB."""
    with Ledger(settings.load().redis) as ledger:
        return _tell(ledger, ledger.resume(job), wait=wait, timeout=timeout, as_json=as_json)


@click.command(
    "retry",
    epilog="\b\nExamples:\n  producer retry 20260131-120000-a1b2c3 --failed --wait\n"
    "  producer retry 20260131-120000-a1b2c3 --cancelled",
)
@click.argument("job")
@click.option("--failed", is_flag=True, help="Images that failed or are dead.")
@click.option("--cancelled", is_flag=True, help="Images left undone because the job was cancelled or stopped.")
@_WAIT
@_TIMEOUT
@_JSON
def retry_command(*, job: str, failed: bool, cancelled: bool, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Run images of an ended JOB again; without a choice, all that are not done."""
    if not failed and not cancelled:
        failed = cancelled = True
    config = settings.load()
    with Ledger(config.redis) as ledger, ObjectStore(config.s3) as store:
        view = retry(store, ledger, job, failed=failed, cancelled=cancelled)
        if view is None:
            console.err.print("nothing to do: no such image")
            return Exit.OK
        return _tell(ledger, view, wait=wait, timeout=timeout, as_json=as_json)


@click.command("recover", epilog="\b\nExample:\n  producer recover 20260131-120000-a1b2c3 s3://shop/masks/ --wait")
@click.argument("job")
@click.argument("dest")
@_WAIT
@_TIMEOUT
@_JSON
def recover_command(*, job: str, dest: str, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Rebuild JOB, which Redis has lost, from what is in S3 under DEST, and go on with it."""
    config = settings.load()
    with Ledger(config.redis) as ledger, ObjectStore(config.s3) as store:
        view = recover(store, ledger, S3Url.folder(dest), job)
        return _tell(ledger, view, wait=wait, timeout=timeout, as_json=as_json)


def _tell(ledger: Ledger, view: JobView, *, wait: bool, timeout: float | None, as_json: bool) -> int:
    left = None if view.total is None else view.total - view.done
    if as_json:
        console.print_json({"job": view.job, "status": view.status.value, "done": view.done, "left": left})
    else:
        rest = "" if left is None else f": {view.done:,} images done, {left:,} left"
        console.out.print(f"job [bold]{view.job}[/] {view.status.value}{rest}")
    if not wait or view.ended:
        return Exit.OK
    return follow_to_the_end(ledger, view.job, timeout=timeout, as_json=as_json)
