"""The `producer download` command."""

from __future__ import annotations

import itertools
from pathlib import Path

import click

from producer.cli import progress
from producer.cli.not_copied import NotCopied
from producer.download import Fetched, download_all
from producer.wording import counts_in_words
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.ledger.jobs import Ledger
from worker.contract.storage.s3 import ObjectStore


@click.command("download", epilog="\b\nExample:\n  producer download 20260131-120000-a1b2c3 ./masks")
@click.argument("job")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def download_command(*, job: str, folder: Path, as_json: bool) -> int:
    """Copy the outputs of JOB written so far to FOLDER, keeping the tree.

    An output whose key cannot be a file here is named, and the others are copied; the exit code is then 3.
    """
    config = settings.load()
    with ObjectStore(config.s3) as store, Ledger(config.redis) as ledger:
        view = ledger.view(job)
        bar = progress.shows_bar(as_json=as_json)
        with console.err.status("downloading") if bar else console.no_display() as status:
            numbers, not_copied = itertools.count(1), NotCopied()

            def on_file(fetched: Fetched) -> None:
                if fetched.problem:
                    not_copied.add(fetched.key, fetched.problem)
                if status is not None:
                    status.update(f"downloaded {next(numbers):,}")

            done = download_all(store, ledger, view, folder, on_file)
    count, gone = done.files, done.gone
    if as_json:
        console.print_json(
            {
                "job": job,
                "files": count,
                "gone": gone,
                "failed": done.failed,
                "problems": not_copied.named,
                "folder": str(folder),
            }
        )
    else:
        console.out.print(f"{count:,} files in {folder}", markup=False, soft_wrap=True)
    if gone:
        console.err.print(
            f"{gone:,} outputs are missing from the bucket: they have been deleted since the job wrote them"
        )
    not_copied.close()
    if not view.ended:
        console.err.print(f"the job is still {view.status.value}: {counts_in_words(view)}", soft_wrap=True)
    return Exit.SOME_FAILED if done.failed else Exit.OK
