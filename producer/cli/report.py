"""The `producer report` command."""

from __future__ import annotations

from pathlib import Path

import click

from producer.cli import progress
from producer.cli.job_options import DEST, find_job
from producer.report.make import make_report, upload_report
from producer.tables import atomic_file
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.s3 import ObjectStore

_EXAMPLES = """\b
Examples:
  producer report 20260131-120000-a1b2c3
  producer report 20260131-120000-a1b2c3 --output report.html
  producer report 20260131-120000-a1b2c3 --output report.html --no-upload --samples 200
  producer report 20260131-120000-a1b2c3 --dest s3://shop/masks/
"""


@click.command("report", epilog=_EXAMPLES)
@click.argument("job")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write the page to this local file."
)
@click.option(
    "--samples",
    type=click.IntRange(0, 1000),
    default=48,
    show_default=True,
    help="Largest number of pictures to show, about 40 kB each. Up to half are masks that need review; more if there "
    "are too few others.",
)
@click.option("--no-upload", is_flag=True, help="Write the page to --output only, not to the job's folder in S3.")
@DEST
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def report_command(
    *, job: str, output: Path | None, samples: int, no_upload: bool, dest: str | None, as_json: bool
) -> int:
    """Write a report about JOB: one page with numbers, speed, failures, and pictures before and after.

    The page is `report.html` in the job's folder in S3. It is self-contained and loads nothing. Run the command while
    the job runs or later, as often as needed.
    """
    if no_upload and output is None:
        raise click.UsageError("--no-upload requires --output")
    config = settings.load()
    with ObjectStore(config.s3) as store, Ledger(config.redis) as ledger:
        view = find_job(store, ledger, job, dest)
        with progress.PhaseDisplay(as_json=as_json) as display:
            page = make_report(store, ledger, view, config, samples=samples, on_progress=display.update)
        if output is not None:
            with atomic_file(output) as file:
                file.write(page)
        url = str(upload_report(store, view, page)) if not no_upload else None
    if as_json:
        console.print_json({"job": job, "report": url, "file": str(output) if output else None, "bytes": len(page)})
    else:
        for place in filter(None, (url, output)):
            console.out.print(str(place), markup=False, soft_wrap=True)
    return Exit.OK
