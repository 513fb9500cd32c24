"""The `producer submit` command."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from producer import folder_dest, live
from producer.backgrounds import OutputRequest
from producer.cli import plan_view, progress
from producer.cli.jobs import NOTIFY, TIMEOUT, WAIT, follow_to_end
from producer.cli.not_copied import NotCopied
from producer.cli.output_options import output_options
from producer.cli.policy_options import policy_options
from producer.cli.source_options import source_options
from producer.delivery import Delivery
from producer.estimate import estimate_plan
from producer.notify import Notifier
from producer.plan import Plan, skips_in_words
from producer.sources.line_reader import STDIN
from producer.sources.resolve import SourceSpec
from producer.submit import Submitted, Submitter
from producer.uptodate import FORCED
from producer.watch import JobSnapshot
from worker.contract import console, settings, tracing
from worker.contract.errors import ConfirmationNeeded
from worker.contract.ledger.backlog import Backlog
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import JobPolicy
from worker.contract.queue.celery_app import make_celery
from worker.contract.settings import JobSettings
from worker.contract.storage.s3 import ObjectStore

_EXAMPLES = """\b
Examples:
  producer submit s3://shop/photos/ s3://shop/masks/ --wait
  producer submit s3://shop/photos/ s3://shop/masks/ --wait --notify https://example.org/hooks/maskmill
  producer submit 's3://shop/photos/**/*.jpg' s3://shop/masks/ --newer-than 7d
  producer submit s3://shop/photos/ s3://shop/masks/ --manifest keys.csv.gz --dry-run
  producer submit s3://shop/ s3://masks/ --manifest s3://inventory/shop/all/2026-01-31T01-00Z/manifest.json --yes
  find photos -name '*.png' | producer submit - s3://shop/masks/
  producer submit s3://shop/photos/ s3://try/ --sample 1% --exclude 'old/**' --min-size 10k
  producer submit ./photos s3://shop/cutouts/ --output cutout --format webp --crop --crop-margin 5%
  producer submit ./photos ./masks
  producer submit s3://shop/photos/ s3://shop/white/ --output composite --format jpeg --background '#ffffff' --refine
  producer submit s3://shop/photos/ s3://shop/all/ --output mask,cutout --name '{dir}/{stem}-{kind}.{ext}'
"""


@click.command("submit", epilog=_EXAMPLES)
@source_options
@click.argument("dest")
@output_options
@policy_options
@click.option("--job-key", default="", help="Submit once: if a job was submitted with this key before, join it.")
@click.option("--dry-run", is_flag=True, help="Show what would be submitted and its cost, and submit nothing.")
@click.option(
    "--confirm-over",
    type=click.IntRange(min=0),
    default=10_000,
    show_default=True,
    help="Ask before submitting more images than this.",
)
@click.option("--yes", is_flag=True, help="Submit without asking.")
@WAIT
@TIMEOUT
@NOTIFY
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines instead of text.")
def submit_command(
    *,
    spec: SourceSpec,
    dest: str,
    outputs: OutputRequest,
    policy: JobPolicy,
    job_key: str,
    dry_run: bool,
    confirm_over: int,
    yes: bool,
    wait: bool,
    timeout: float | None,
    notify: str | None,
    as_json: bool,
) -> int:
    """Submit every image of SOURCE; outputs go under DEST and keep the tree.

    SOURCE is an s3:// prefix, object or glob (quoted); or local folders, files and globs, which are uploaded first
    (unchanged files are not uploaded again); or - for a list of s3:// URLs or local paths on standard input, as text
    or JSON lines. DEST is an s3:// prefix; or, with services on this machine (`maskmill serve`), a folder: the command
    then waits for the job, and outputs appear in the folder as they are done. The mask of `shoes/1.jpg` is
    `shoes/1.png` under DEST; with `--output mask,cutout`, the outputs are `mask/shoes/1.png` and `cutout/shoes/1.png`.

    Filters apply in this order: suffix, --include, --exclude, --min-size and --max-size, --newer-than, --sample,
    --limit. In globs, * and ? match within a folder, ** matches across folders, and [abc] and {jpg,png} match one of
    several. Case matters, but not in the suffix: *.jpg matches A.JPG.
    """
    config = settings.load()
    folder = folder_dest.find_folder(dest, config.s3)
    if folder is not None:
        folder_dest.refuse_overlap(map(Path, filter(_is_local, spec.places)), folder)
        dest, wait = str(folder_dest.place_of(folder)), True
        policy = policy.model_copy(update={"folder": str(folder)})
    if notify and not wait:
        raise click.UsageError("--notify requires --wait; or run `producer watch JOB --notify URL` later")
    notifier = Notifier(notify, config.notify) if notify else None
    traced = tracing.session("maskmill-producer")
    with traced as traces, ObjectStore(config.s3) as store, Ledger(config.redis) as ledger:
        ledger.connection.check()
        display = progress.PhaseDisplay(as_json=as_json)
        celery = make_celery(config, client_name="maskmill-submit")
        submitter = Submitter(store, ledger, celery, config.jobs.chunk_images, display.update, traces)
        if dry_run:
            with display:
                plan = submitter.plan(spec, dest, outputs, count_up_to_date=policy.skip_existing)
            return _show_plan(plan, ledger, config.jobs, force=not policy.skip_existing, as_json=as_json)
        limit = None if yes else confirm_over
        approve = partial(_approve, display=display, ledger=ledger, jobs=config.jobs, confirm_over=limit)
        if folder is not None:
            folder_dest.create(folder)
        with display:
            submitted = submitter.submit(spec, dest, outputs, policy=policy, job_key=job_key, approve=approve)
        _show_submitted(submitted, folder, as_json=as_json or progress.is_followed_by_lines(wait=wait))
        if not wait:
            return console.Exit.OK
        job, follow = submitted.view.job, partial(follow_to_end, timeout=timeout, as_json=as_json, notifier=notifier)
        if folder is None:
            return follow(ledger, job)
        delivery = Delivery(store, ledger, submitted.view, folder)
        remedy = f"`producer download {job} {folder}` fetches its outputs"
        not_copied = NotCopied()
        code = follow(ledger, job, on_snapshot=partial(_deliver, delivery, not_copied), remedy=remedy)
        not_copied.close()
        return console.Exit.SOME_FAILED if not_copied.count and code is console.Exit.OK else code


def _is_local(place: str) -> bool:
    return place != STDIN and "://" not in place


def _deliver(delivery: Delivery, not_copied: NotCopied, snapshot: JobSnapshot) -> None:
    for image in delivery.collect(snapshot.view):
        if image.problem:
            not_copied.add(image.key, image.problem)


def _approve(
    plan: Plan, *, display: progress.PhaseDisplay, ledger: Ledger, jobs: JobSettings, confirm_over: int | None
) -> None:
    """Ask for confirmation if the plan has more images than `confirm_over`; None never asks.

    Raises:
        ConfirmationNeeded: the answer is no, or there is no terminal to ask on.
    """
    with display.paused():
        if confirm_over is not None and not plan_view.confirm(plan, ledger, confirm_over, jobs):
            raise ConfirmationNeeded("nothing was submitted")
    display.total = plan.images


def _show_plan(plan: Plan, ledger: Ledger, jobs: JobSettings, *, force: bool, as_json: bool) -> int:
    """Show the plan and close it; a plan that could not be submitted is an error here too."""
    if force:
        plan = replace(plan, up_to_date_basis=FORCED.basis)
    with plan:
        cost = estimate_plan(plan, ledger)
        other = Backlog(ledger.connection).first_writer(plan.options.dest)
        waits_for = live.describe_blocker(other) if other else ""
        if as_json:
            console.print_json(plan_view.as_dict(plan, cost, jobs, waits_for))
        else:
            plan_view.show(plan, cost, jobs, waits_for)
        plan.check()
    return console.Exit.OK


def _show_submitted(submitted: Submitted, folder: Path | None, *, as_json: bool) -> None:
    view = submitted.view
    if as_json:
        console.print_json(
            {
                "job": view.job,
                "images": view.total,
                "bytes": view.bytes,
                "chunks": view.chunks,
                "passed_over": submitted.skipped.total(),
                "skipped": {reason.value: count for reason, count in submitted.skipped.items()},
                "joined": submitted.joined,
                "waits_for": submitted.waits_for,
                "confirmed": submitted.confirmed,
                "source": str(view.options.source),
                "dest": str(view.options.dest),
            }
            | ({} if folder is None else {"folder": str(folder)})
        )
        return
    counts = f"{_counted(view.total or 0, 'image')} in {_counted(view.chunks, 'chunk')}"
    console.out.print(f"job [bold]{view.job}[/]: {counts}", soft_wrap=True)
    if submitted.skipped:
        console.out.print(f"left out: {skips_in_words(submitted.skipped)}", soft_wrap=True)
    if submitted.joined:
        console.out.print(f"it was submitted earlier with this key and is {view.status.value}")
    if not submitted.confirmed:
        console.err.print(
            "too few replicas of Redis confirmed the job in time: if a failover loses it, `producer recover "
            f"{view.job} {view.options.dest}` rebuilds it from S3",
            markup=False,
            soft_wrap=True,
        )
    if submitted.waits_for:
        console.out.print(
            f"it starts when job {submitted.waits_for} ends, which writes to the same destination", soft_wrap=True
        )
    console.out.print(f"outputs go to {folder or view.options.dest}", markup=False, soft_wrap=True)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
