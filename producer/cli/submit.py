"""`producer submit`."""

from __future__ import annotations

import click

from producer.cli import progress
from producer.cli.jobs import follow_to_the_end
from producer.submit import Submitted, Submitter
from worker.contract import console, settings
from worker.contract.broker import make_celery
from worker.contract.ledger import Ledger
from worker.contract.messages import OutputKind
from worker.contract.objects import ObjectStore

_OUTPUTS = {
    "mask": (OutputKind.MASK,),
    "cutout": (OutputKind.CUTOUT,),
    "both": (OutputKind.MASK, OutputKind.CUTOUT),
}


_EXAMPLES = """\b
Examples:
  producer submit s3://shop/photos/ s3://shop/masks/ --wait
  producer submit ./photos s3://shop/cutouts/ --output cutout
"""


@click.command("submit", epilog=_EXAMPLES)
@click.argument("source")
@click.argument("dest")
@click.option("--output", type=click.Choice(list(_OUTPUTS)), default="mask", show_default=True, help="What to write.")
@click.option("--wait", is_flag=True, help="Stay until the job ends; the exit code tells how.")
@click.option("--timeout", type=click.FloatRange(min=0), help="With --wait: seconds to stay at most.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of text.")
def submit_command(*, source: str, dest: str, output: str, wait: bool, timeout: float | None, as_json: bool) -> int:
    """Submit every image under SOURCE; outputs go under DEST and keep the tree.

    SOURCE is an s3:// prefix or a local folder (uploaded first); DEST is an s3:// prefix.
    A mask of `shoes/1.jpg` is `shoes/1.png` under DEST; with `--output both`, `mask/shoes/1.png` and
    `cutout/shoes/1.png`.
    """
    config = settings.load()
    with ObjectStore(config.s3) as store, Ledger(config.redis) as ledger:
        ledger.check()
        bar = progress.shows_bar(as_json=as_json)
        with console.err.status("listing") if bar else console.nothing() as status:

            def tell(phase: str, count: int) -> None:
                if status is not None:
                    status.update(f"{phase} {count:,}")

            submitter = Submitter(
                store, ledger, make_celery(config, client_name="maskmill-submit"), config.jobs.chunk_images, tell
            )
            submitted = submitter.submit(source, dest, _OUTPUTS[output])
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
                "dest": view.options.dest,
            }
        )
        return
    passed_over = f", {submitted.passed_over:,} other files passed over" if submitted.passed_over else ""
    console.out.print(
        f"job [bold]{view.job}[/]: {_counted(view.total or 0, 'image')} in "
        f"{_counted(view.chunks, 'chunk')}{passed_over}"
    )
    console.out.print(f"outputs go to {view.options.dest}", soft_wrap=True)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
