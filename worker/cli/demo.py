"""`worker demo`: run the main job from start to end on this machine."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import click

from worker.cli.standalone import STATE, model_settings
from worker.contract import console
from worker.contract.console import Exit
from worker.standalone.photographs import copy_photographs
from worker.standalone.services import DEFAULT_BUCKET
from worker.standalone.stack import Stack

_DEST = f"s3://{DEFAULT_BUCKET}/demo/"


@click.command("demo")
@STATE
@click.option(
    "--photos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    show_default="the included photographs",
    help="Folder of photographs to submit.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-masks"),
    show_default=True,
    help="Local folder for the masks and cut-outs.",
)
def demo_command(*, state: Path, photos: Path | None, output: Path) -> int:
    """Run a whole job on this machine.

    Starts Redis, S3 and workers, submits photographs, downloads their masks and cut-outs, and stops everything.
    """
    if photos is None:
        photos = state / "photos"
        copy_photographs(photos)
    echo = console.out.print
    model = model_settings(echo)
    echo("[bold]1[/] starting Redis, S3 and workers")
    began = time.monotonic()
    with Stack(state, settings=model) as stack:
        echo(f"  Redis {stack.services.redis_url}, S3 {stack.services.s3_endpoint}, log {stack.worker_log}")
        echo(f"[bold]2[/] producer submit {photos} {_DEST} --output both --wait")
        status = stack.run(["producer", "submit", str(photos), _DEST, "--output", "both", "--wait"])
        if status not in (Exit.OK, Exit.SOME_FAILED):
            return status
        job = _newest_job(stack)
        echo(f"[bold]3[/] producer download {job} {output}")
        downloaded = stack.run(["producer", "download", job, str(output)])
    if downloaded != Exit.OK:
        return downloaded
    echo(f"[bold]done[/] in {time.monotonic() - began:.1f} s")
    echo(f"photographs  {photos.absolute()}", soft_wrap=True)
    echo(f"masks        {output.absolute() / 'mask'}", soft_wrap=True)
    echo(f"cut-outs     {output.absolute() / 'cutout'}", soft_wrap=True)
    echo(
        f"in S3        {_DEST} (stored in {state.absolute() / 's3'}; `worker standalone` serves it again)",
        soft_wrap=True,
    )
    return status


def _newest_job(stack: Stack) -> str:
    listing = subprocess.run(
        ["producer", "list", "--limit", "1", "--json"],
        env=stack.environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    job: str = json.loads(listing.stdout)["job"]
    return job
