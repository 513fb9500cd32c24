"""`worker bench submit`."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, print_progress, publish
from worker.contract.console import Exit

EPILOG = """\b
Examples:
  worker bench submit --keys 10000 --output bench              a minute
  worker bench submit --keys 1000000 --keys 10000000 --output bench

\b
Starts its own Redis and S3 server (extra [standalone]) in the folder for temporary files, which needs 100 bytes per
key. The installation that the settings name is not touched.
"""


@click.command("submit", epilog=EPILOG)
@click.option("--keys", type=click.IntRange(min=2), multiple=True, help="Images of a job, repeatable. [1000000]")
@click.option(
    "--plain-messages",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="Messages of plain Celery from which its cost is extrapolated.",
)
@click.option(
    "--lost-jobs",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Jobs of up to 10,000 images that `recover --all` rebuilds.",
)
@OUTPUT
def submit_command(*, keys: tuple[int, ...], plain_messages: int, lost_jobs: int, output: Path) -> int:
    """Submit jobs of any size without a picture, and measure time, memory, status, cancel and recover.

    Compares with plain Celery with one message per image. Only the listing is made up: the code that submits, Redis and
    S3 are real.
    """
    from worker.bench import report, submit

    report.check_writable(output)
    options = submit.SubmitOptions(keys or (1_000_000,), plain_messages, lost_jobs)
    publish(submit.run(options, print_progress), output)
    return Exit.OK
