"""`worker bench neighbour`."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, print_progress, publish
from worker.contract.console import Exit

EPILOG = """\b
Examples:
  worker bench neighbour --quick --output bench
  worker bench neighbour --rounds 3 --output bench
"""


@click.command("neighbour", epilog=EPILOG)
@click.option("--rounds", type=click.IntRange(min=1), default=1, show_default=True, help="Turns of each neighbour.")
@click.option("--quick", is_flag=True, help="A smaller job beside smaller neighbours.")
@OUTPUT
def neighbour_command(*, rounds: int, quick: bool, output: Path) -> int:
    """Measure what one tenant's jobs cost a job of another tenant, and the memory of Redis and steward.

    The neighbours: very many tiny images that fail, a thousand jobs of one image, a paused job, a job at the size
    limits.
    """
    from worker.bench import neighbour, report

    report.check_writable(output)
    options = neighbour.NeighbourOptions(rounds=rounds)
    if quick:
        options = neighbour.NeighbourOptions(images=20, jobs=30, tiny=2_000, limit=20_000, rounds=rounds)
    publish(neighbour.run(options, print_progress), output)
    return Exit.OK
