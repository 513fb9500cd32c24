"""`producer report`."""

from __future__ import annotations

from pathlib import Path

import click

from producer.cli import progress
from producer.cli.job_options import DEST, find
from producer.report.make import make_report, upload
from producer.tables import appearing
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
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Local file to write the page to as well."
)
@click.option(
    "--samples",
    type=click.IntRange(0, 1000),
    default=48,
    show_default=True,
    help="Pictures to show at most, about 40 kB each; half of them masks that need a look, where there are so many.",
)
@click.option("--no-upload", is_flag=True, help="Write it to --output only, not to the job's folder in S3.")
@DEST
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def report_command(
    *, job: str, output: Path | None, samples: int, no_upload: bool, dest: str | None, as_json: bool
) -> int:
    """Write one page about JOB, `report.html` in its folder in S3: numbers, speed, failures, and pictures to compare.

    The page needs nothing beside itself and loads nothing. It can be made while the job runs, and again later.
    """
    if no_upload and output is None:
        raise click.UsageError("with --no-upload, name a file with --output")
    config = settings.load()
    with ObjectStore(config.s3) as store, Ledger(config.redis) as ledger:
        view = find(store, ledger, job, dest)
        with progress.Teller(as_json=as_json) as teller:
            page = make_report(store, ledger, view, config, samples=samples, tell=teller.tell)
        if output is not None:
            with appearing(output) as path:
                path.write_bytes(page)
        where = str(upload(store, view, page)) if not no_upload else None
    if as_json:
        console.print_json({"job": job, "report": where, "file": str(output) if output else None, "bytes": len(page)})
    else:
        for written in filter(None, (where, output)):
            console.out.print(str(written), markup=False, soft_wrap=True)
    return Exit.OK
