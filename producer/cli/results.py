"""`producer results`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from producer.cli.job_options import DEST, find, words
from producer.outcomes import outcomes
from producer.tables import TableFormat, appearing, write_csv, write_jsonl, write_parquet
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.job import JobView
from worker.contract.ledger.jobs import Ledger
from worker.contract.messages import FLAGS, Outcome, OutcomeKind
from worker.contract.storage.s3 import ObjectStore

_EXAMPLES = """\b
Examples:
  producer results 20260131-120000-a1b2c3 > results.jsonl
  producer results 20260131-120000-a1b2c3 --outcome failed,dead --format csv
  producer results 20260131-120000-a1b2c3 --needs-review
  producer results 20260131-120000-a1b2c3 --flag soft,full --format csv --output look.csv
  producer results 20260131-120000-a1b2c3 --format parquet --output results.parquet
  producer results 20260131-120000-a1b2c3 --dest s3://shop/masks/ | head
"""


@click.command("results", epilog=_EXAMPLES)
@click.argument("job")
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in TableFormat]),
    default=TableFormat.JSONL.value,
    show_default=True,
    help="Parquet needs --output and the extra maskmill[parquet].",
)
@click.option(
    "--outcome",
    "kinds",
    multiple=True,
    callback=partial(words, known=[kind.value for kind in OutcomeKind]),
    metavar="OUTCOME,...",
    help="Only these: ok, skipped, failed, dead, cancelled; several with commas or repeated.",
)
@click.option(
    "--flag",
    "flags",
    multiple=True,
    callback=partial(words, known=list(FLAGS)),
    metavar="FLAG,...",
    help="Only masks that are conspicuous like this: empty, full, soft, border; with several, in any of these ways.",
)
@click.option("--needs-review", is_flag=True, help="Only masks that a person should look at: empty, full or soft.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write to instead of standard output; it appears when it is complete.",
)
@DEST
def results_command(
    *,
    job: str,
    form: str,
    kinds: tuple[str, ...],
    flags: tuple[str, ...],
    needs_review: bool,
    output: Path | None,
    dest: str | None,
) -> int:
    """Print what became of every image of JOB so far, one line each, in no particular order; of any number of images.

    A line has the key, the outcome, code and message of a failure, the outputs, when it was done and how long each
    stage took, and what the mask looks like: coverage (mean opacity), soft (share of the subject that is neither clear
    nor opaque), and flags for an empty or full mask, one that is mostly soft, and a subject that touches the border.
    """
    form = TableFormat(form)
    if form is TableFormat.PARQUET and output is None:
        raise click.UsageError("Parquet cannot be printed: name a file with --output")
    config = settings.load()
    with ObjectStore(config.s3) as store, Ledger(config.redis) as ledger:
        view = find(store, ledger, job, dest)
        found = outcomes(
            store, ledger, view, kinds=map(OutcomeKind, kinds) if kinds else OutcomeKind, needs_review=needs_review
        )
        _write(_flagged(found, frozenset(flags)), view, form, output)
    if not view.ended:
        console.err.print(f"the job is still {view.status.value}: {view.done:,} of {view.total or 0:,} images are done")
    return Exit.OK


def _flagged(found: Iterator[Outcome], flags: frozenset[str]) -> Iterator[Outcome]:
    return (
        outcome for outcome in found if not flags or (outcome.quality and not flags.isdisjoint(outcome.quality.flags))
    )


def _write(found: Iterator[Outcome], view: JobView, form: TableFormat, output: Path | None) -> None:
    write = write_csv if form is TableFormat.CSV else write_jsonl
    if output is None:
        write(found, view, sys.stdout)
        return
    with appearing(output) as path:
        if form is TableFormat.PARQUET:
            write_parquet(found, view, path)
        else:
            with path.open("w", encoding="utf-8", newline="") as file:
                write(found, view, file)
