"""`producer submit`."""

from __future__ import annotations

import click

from producer.cli import progress
from producer.cli.jobs import follow_to_the_end
from producer.cli.output_options import OutputRequest, output_options
from producer.cli.policy_options import policy_options
from producer.submit import Submitted, Submitter
from worker.contract import console, settings
from worker.contract.broker import make_celery
from worker.contract.ledger import Ledger
from worker.contract.messages import JobPolicy
from worker.contract.objects import ObjectStore

_EXAMPLES = """\b
Examples:
  producer submit s3://shop/photos/ s3://shop/masks/ --wait
  producer submit ./photos s3://shop/cutouts/ --output cutout --format webp --crop --crop-margin 5%
  producer submit s3://shop/photos/ s3://shop/white/ --output composite --format jpeg --background '#ffffff' --refine
  producer submit s3://shop/photos/ s3://shop/all/ --output mask,cutout --name '{dir}/{stem}-{kind}.{ext}'
"""


@click.command("submit", epilog=_EXAMPLES)
@click.argument("source")
@click.argument("dest")
@output_options
@policy_options
@click.option("--job-key", default="", help="Submit once: with a key used before, that job is joined instead.")
@click.option("--wait", is_flag=True, help="Stay until the job ends; the exit code tells how.")
@click.option("--timeout", type=click.FloatRange(min=0), help="With --wait: seconds to stay at most.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of text.")
def submit_command(
    *,
    source: str,
    dest: str,
    outputs: OutputRequest,
    policy: JobPolicy,
    job_key: str,
    wait: bool,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Submit every image under SOURCE; outputs go under DEST and keep the tree.

    SOURCE is an s3:// prefix or a local folder (uploaded first); DEST is an s3:// prefix.
    A mask of `shoes/1.jpg` is `shoes/1.png` under DEST; with `--output mask,cutout`, `mask/shoes/1.png` and
    `cutout/shoes/1.png`.
    """
    config = settings.load()
    with ObjectStore(config.s3) as store, Ledger(config.redis) as ledger:
        ledger.link.check()
        bar = progress.shows_bar(as_json=as_json)
        with console.err.status("listing") if bar else console.nothing() as status:

            def tell(phase: str, count: int) -> None:
                if status is not None:
                    status.update(f"{phase} {count:,}")

            submitter = Submitter(
                store, ledger, make_celery(config, client_name="maskmill-submit"), config.jobs.chunk_images, tell
            )
            submitted = submitter.submit(source, dest, outputs.settled(store, dest), policy=policy, job_key=job_key)
        _announce(submitted, as_json=as_json)
        if not wait:
            return console.Exit.OK
        return follow_to_the_end(ledger, submitted.view.job, timeout=timeout, as_json=as_json)


def _announce(submitted: Submitted, *, as_json: bool) -> None:
    view = submitted.view
    if as_json:
        console.print_json(
            {
                "job": view.job,
                "images": view.total,
                "bytes": view.bytes,
                "chunks": view.chunks,
                "passed_over": submitted.passed_over,
                "joined": submitted.joined,
                "waits_for": submitted.waits_for,
                "dest": view.options.dest,
            }
        )
        return
    passed_over = f", {submitted.passed_over:,} other files passed over" if submitted.passed_over else ""
    console.out.print(
        f"job [bold]{view.job}[/]: {_counted(view.total or 0, 'image')} in "
        f"{_counted(view.chunks, 'chunk')}{passed_over}"
    )
    if submitted.joined:
        console.out.print(f"it was submitted before with this key and is {view.status.value}")
    if submitted.waits_for:
        console.out.print(f"it starts when job {submitted.waits_for} has ended, which writes to the same place")
    console.out.print(f"outputs go to {view.options.dest}", soft_wrap=True)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
