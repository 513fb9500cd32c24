"""Commands that show jobs: `producer status`, `watch`, `list`; and the options of every command that can wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import click
from rich.markup import escape
from rich.table import Table

from producer import live
from producer.cli import progress
from producer.notify import Notifier
from producer.watch import JobSnapshot, follow, mean_rate
from producer.wording import cost_fields, cost_in_words, counts_in_words, iso_time
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.errors import JobUnreadable, NotificationFailed
from worker.contract.job import JobStatus, JobView, UnreadableJob
from worker.contract.ledger.jobs import Ledger

UNREADABLE = "unreadable"
"""Shown as the status of a job whose record cannot be read."""

_SHOWN_FAILURES = 10
_WIDE = 100
"""Columns of a terminal from which `list` has room for the time of submission."""
_HOUR = 3600.0
_SMALLEST_SHOWN_SHARE = 0.005
"""Smaller shares would be printed as 0%."""

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
WAIT = click.option("--wait", is_flag=True, help="Wait until the job ends; the exit code gives the result.")
TIMEOUT = click.option(
    "--timeout", type=console.FiniteRange(min=0), help="With --wait: longest time to wait, in seconds."
)
NOTIFY = click.option(
    "--notify",
    metavar="URL",
    help="When the job ends, POST its numbers to this URL, signed with MASKMILL_NOTIFY__SECRET (Standard Webhooks). "
    "Messages show only scheme, host and port; if the URL contains a token, set the environment variable instead of "
    "the option.",
)


@click.command("status", epilog="\b\nExample:\n  producer status 20260131-120000-a1b2c3 --json")
@click.argument("job")
@JSON
def status_command(*, job: str, as_json: bool) -> int:
    """Show the state of JOB and the live workers. The exit code is 0 unless the job cannot be read."""
    config = settings.load()
    with Ledger(config.redis) as ledger:
        try:
            view = ledger.view(job)
        except JobUnreadable as error:
            return _show_unreadable(error, as_json=as_json)
        failures = ledger.failures(job) if view.failed or view.dead else []
        workers = [] if view.ended else live.workers(ledger)
        waiting = "" if view.ended else live.why_waiting(ledger, view)
        shares = {} if view.ended else live.stage_shares(ledger, job)
    if as_json:
        activity: dict[str, object] = {
            "workers": [worker.model_dump(mode="json") for worker in workers],
            "stage_shares": shares,
            **({"waiting": waiting} if waiting else {}),
        }
        spent = view.core_seconds / _HOUR
        costs = {"core_hours": round(spent, 6)} | cost_fields(spent, config.jobs)
        console.print_json(_as_dict(view) | costs | {"failures": failures} | ({} if view.ended else activity))
        return Exit.OK
    _print_view(view, failures)
    if not view.ended:
        for line in filter(None, (waiting, live.describe_workers(workers))):
            console.out.print(line, markup=False, soft_wrap=True)
        if shares:
            shown = [f"{stage} {share:.0%}" for stage, share in shares.items() if share >= _SMALLEST_SHOWN_SHARE]
            console.out.print(f"time of the last images: {', '.join(shown)}", soft_wrap=True)
    return Exit.OK


@click.command(
    "watch",
    epilog="\b\nExamples:\n  producer watch 20260131-120000-a1b2c3 --timeout 3600\n"
    "  producer watch 20260131-120000-a1b2c3 --notify https://example.org/hooks/maskmill",
)
@click.argument("job")
@click.option("--timeout", type=console.FiniteRange(min=0), help="Longest time to wait, in seconds.")
@NOTIFY
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of a progress bar.")
def watch_command(*, job: str, timeout: float | None, notify: str | None, as_json: bool) -> int:
    """Follow JOB until it ends; the exit code gives the result."""
    config = settings.load()
    notifier = Notifier(notify, config.notify) if notify else None
    with Ledger(config.redis) as ledger:
        return follow_to_end(ledger, job, timeout=timeout, as_json=as_json, notifier=notifier)


@click.command("list", epilog="\b\nExample:\n  producer list --limit 5 --json")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Number of jobs to show."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per job instead of a table.")
def list_command(*, limit: int, as_json: bool) -> int:
    """List jobs, newest first."""
    with Ledger(settings.load().redis) as ledger:
        found = ledger.newest(limit)
    if as_json:
        for each in found:
            console.print_json(_unreadable_as_dict(each) if isinstance(each, UnreadableJob) else _as_dict(each))
        return Exit.OK
    if not found:
        console.out.print("no jobs yet: submit one with `producer submit SOURCE DEST`")
        return Exit.OK
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("job", "status"):  # programs and people copy them: only the other columns give way
        table.add_column(name, no_wrap=True)
    for name in ("images", "done", "failed"):
        table.add_column(name, justify="right", overflow="fold")
    # A narrow screen has no room for the time, which the id begins with.
    shows_time = not console.out.is_terminal or console.out.width >= _WIDE
    for name in ("submitted", "outputs") if shows_time else ("outputs",):
        table.add_column(name, overflow="fold")
    for each in found:
        table.add_row(*_cells(each, with_time=shows_time))
    console.print_table(table)
    return Exit.OK


def _cells(job: JobView | UnreadableJob, *, with_time: bool) -> tuple[str, ...]:
    """Return the cells of a job in the table of `producer list`."""
    if isinstance(job, UnreadableJob):
        return job.job, UNREADABLE, "?", "?", "?", *(["?"] if with_time else []), escape(job.reason)
    time = iso_time(job.created_at)[: len("2026-01-31T12:00")] + "Z"
    return (
        job.job,
        job.status.value,
        "?" if job.total is None else f"{job.total:,}",
        f"{job.done:,}",
        f"{job.failed + job.dead:,}",
        *([time] if with_time else []),
        escape(_place(job)),
    )


def _show_unreadable(error: JobUnreadable, *, as_json: bool) -> Exit:
    if as_json:
        console.print_json(_unreadable_as_dict(UnreadableJob(error.job, error.reason)))
    else:
        console.out.print(str(error), markup=False, soft_wrap=True)
    return Exit.SETUP


def _unreadable_as_dict(job: UnreadableJob) -> dict[str, object]:
    return {"job": job.job, "status": UNREADABLE, "reason": job.reason}


def follow_to_end(
    ledger: Ledger,
    job: str,
    *,
    timeout: float | None,
    as_json: bool,
    notifier: Notifier | None = None,
    on_snapshot: Callable[[JobSnapshot], None] = lambda snapshot: None,
    remedy: str = "",
) -> Exit:
    """Show progress until the job ends or the time-out expires, then show the result and notify of an end.

    Args:
        ledger: ledger that holds the job.
        job: id of the job.
        timeout: longest time to wait, in seconds; None waits until the job ends.
        as_json: print JSON lines instead of a bar.
        notifier: notifies of the end.
        on_snapshot: called with each snapshot before it is shown.
        remedy: what to do after an interruption; empty: to follow the job again.

    Returns:
        The exit code of the command.
    """
    why_waiting = partial(live.why_waiting, ledger)

    def snapshots() -> Iterator[JobSnapshot]:
        for snapshot in follow(ledger, job, interval=progress.POLL_SECONDS, timeout=timeout, why_waiting=why_waiting):
            on_snapshot(snapshot)
            yield snapshot

    try:
        view = progress.show(snapshots(), as_json=as_json, failures=lambda view: ledger.failures(view.job))
    except KeyboardInterrupt:
        again = remedy or f"`producer watch {job}` follows it again"
        console.err.print(f"\nthe job continues: {again}, `producer cancel {job}` stops it", soft_wrap=True)
        return Exit.INTERRUPTED
    if progress.shows_bar(as_json=as_json):
        _print_view(view, ledger.failures(job) if view.failed or view.dead else [])
    code = progress.exit_code(view)
    if notifier and view.ended:
        _notify(notifier, view, code)
    return code


def _notify(notifier: Notifier, view: JobView, code: Exit) -> None:
    """Send the notification; a failure is printed and does not change the exit code."""
    try:
        notifier.send_job_ended(view, code)
    except NotificationFailed as error:
        console.err.print(f"[bold red]error[/] ({error.code}): ", end="")
        console.err.print(str(error), markup=False, soft_wrap=True)


def _as_dict(view: JobView) -> dict[str, object]:
    return JobSnapshot(view, mean_rate(view)).as_dict() | {
        "source": str(view.options.source),
        "dest": str(view.options.dest),
        "outputs": [kind.value for kind in view.options.outputs],
        "bytes": view.bytes,
        "chunks": view.chunks,
        "chunk_images": view.chunk_images,
        "created_at": iso_time(view.created_at),
        "started_at": iso_time(view.started_at),
        "finished_at": iso_time(view.finished_at),
        "reason": view.reason,
        "epoch": view.epoch,
        "priority": view.policy.priority.value,
        "failures_by_code": view.codes,
        "core_seconds": round(view.core_seconds, 3),
    }


def _print_view(view: JobView, failures: list[dict[str, str]]) -> None:
    out = console.out
    reason = f": {escape(view.reason)}" if view.reason else ""
    out.print(f"job [bold]{view.job}[/] {view.status.value}{reason}", soft_wrap=True)
    out.print(counts_in_words(view), soft_wrap=True)
    rate = mean_rate(view)
    if rate:
        seconds = f", {progress.duration(view.done / rate)} since the first image started" if view.started_at else ""
        out.print(f"{rate:.2f} images/s{seconds}", soft_wrap=True)
    if view.core_seconds:
        out.print(cost_in_words(view.core_seconds / _HOUR, settings.load().jobs), markup=False, soft_wrap=True)
    for failure in failures[:_SHOWN_FAILURES]:
        text = f"  {failure['kind']} {failure['code']}: {failure['key']}: {failure['message']}"
        out.print(text, markup=False, soft_wrap=True)
    if len(failures) > _SHOWN_FAILURES:
        out.print(
            f"  and {len(failures) - _SHOWN_FAILURES:,} more: run `producer status {view.job} --json`", soft_wrap=True
        )
    if view.status is JobStatus.FINISHED:
        out.print(f"outputs are in {_place(view)}", soft_wrap=True, markup=False)


def _place(view: JobView) -> str:
    """Return where people find the outputs of a job: its folder if they are copied to one."""
    return view.policy.folder or str(view.options.dest)
