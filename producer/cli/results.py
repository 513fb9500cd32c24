"""The `producer results` command."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from producer.cli.job_options import DEST, find_job, split_choices
from producer.outcomes import read_outcomes
from producer.tables import TableFormat, atomic_file, write_csv, write_jsonl, write_parquet
from producer.wording import counts_in_words
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
  producer results 20260131-120000-a1b2c3 --flag soft,full --format csv --output review.csv
  producer results 20260131-120000-a1b2c3 --format parquet --output results.parquet
  producer results 20260131-120000-a1b2c3 --dest s3://shop/masks/ | head
"""


@click.command("results", epilog=_EXAMPLES)
@click.argument("job")
@click.option(
    "--format",
    "table_format",
    type=click.Choice([table_format.value for table_format in TableFormat]),
    default=TableFormat.JSONL.value,
    show_default=True,
    help="Format of the table; parquet requires --output and the extra maskmill[parquet].",
)
@click.option(
    "--outcome",
    "kinds",
    multiple=True,
    callback=partial(split_choices, choices=[kind.value for kind in OutcomeKind]),
    metavar="OUTCOME,...",
    help="Only images with these outcomes: ok, skipped, failed, dead, cancelled; separated by commas or as repeated "
    "options.",
)
@click.option(
    "--flag",
    "flags",
    multiple=True,
    callback=partial(split_choices, choices=list(FLAGS)),
    metavar="FLAG,...",
    help="Only masks with at least one of these flags: empty, full, soft, border; separated by commas or as repeated "
    "options.",
)
@click.option("--needs-review", is_flag=True, help="Only masks that need review by a person: empty, full or soft.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write to this file instead of standard output; the file appears when it is complete.",
)
@click.option(
    "--guard-formulas",
    is_flag=True,
    help="CSV: put an apostrophe before texts that a spreadsheet would run, such as a key that begins with =.",
)
@DEST
def results_command(
    *,
    job: str,
    table_format: str,
    kinds: tuple[str, ...],
    flags: tuple[str, ...],
    needs_review: bool,
    output: Path | None,
    guard_formulas: bool,
    dest: str | None,
) -> int:
    """Print the outcome of every image of JOB so far, one line per image, in no particular order.

    Each line holds the key, the outcome, the code and message of a failure, the outputs, the time of the outcome and
    the seconds spent in each stage. It also describes the mask: coverage (mean opacity), soft (share of the subject
    that is neither transparent nor opaque), and flags for a mask that is empty, full or soft over whole areas
    (the network was undecided) and for a subject that touches the border. Notes say what the file of an image lacked,
    such as its last bytes or a usable ICC profile. Memory use does not grow with the job.
    """
    chosen = TableFormat(table_format)
    if chosen is TableFormat.PARQUET and output is None:
        raise click.UsageError("--format parquet requires --output")
    if guard_formulas and chosen is not TableFormat.CSV:
        raise click.UsageError("--guard-formulas requires --format csv")
    config = settings.load()
    with ObjectStore(config.s3) as store, Ledger(config.redis) as ledger:
        view = find_job(store, ledger, job, dest)
        found = read_outcomes(
            store, ledger, view, kinds=map(OutcomeKind, kinds) if kinds else OutcomeKind, needs_review=needs_review
        )
        _write(_flagged(found, frozenset(flags)), view, chosen, output, guard_formulas=guard_formulas)
    if not view.ended:
        console.err.print(f"the job is still {view.status.value}: {counts_in_words(view)}", soft_wrap=True)
    return Exit.OK


def _flagged(found: Iterator[Outcome], flags: frozenset[str]) -> Iterator[Outcome]:
    return (
        outcome for outcome in found if not flags or (outcome.quality and not flags.isdisjoint(outcome.quality.flags))
    )


def _write(
    found: Iterator[Outcome], view: JobView, table_format: TableFormat, output: Path | None, *, guard_formulas: bool
) -> None:
    as_csv = partial(write_csv, guard_formulas=guard_formulas)
    write = as_csv if table_format is TableFormat.CSV else write_jsonl
    if output is None:
        write(found, view, sys.stdout)
        return
    with atomic_file(output) as file:
        if table_format is TableFormat.PARQUET:
            write_parquet(found, view, file)
        else:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="")
            write(found, view, text)
            text.detach()  # flushes; `atomic_file` closes the file
