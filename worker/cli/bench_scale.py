"""`worker bench scale`."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, network, print_progress, publish
from worker.contract import settings
from worker.contract.console import Exit, FiniteRange

_SECONDS, _QUICK_SECONDS = 30.0, 8.0

EPILOG = """\b
Examples:
  worker bench scale --quick --output bench
  MASKMILL_PLAN__PROCESSES=8 worker bench scale --output bench
"""


@click.command("scale", epilog=EPILOG)
@click.option(
    "--seconds",
    type=FiniteRange(min=1),
    help=f"Duration of each turn of the network alone and of each job. [{_SECONDS:g}]",
)
@click.option("--quick", is_flag=True, help=f"{_QUICK_SECONDS:g} s each.")
@OUTPUT
def scale_command(*, seconds: float | None, quick: bool, output: Path) -> int:
    """Measure what each further core set adds, to the network alone and from S3 to S3.

    Runs the network of the settings on 1, 2, 4, ... core sets of the plan (on single cores if the plan has one set).
    """
    from worker.bench import report, scale

    report.check_writable(output)
    config = settings.load()
    config, variant, arithmetic = network(config)
    options = scale.ScaleOptions(seconds or (_QUICK_SECONDS if quick else _SECONDS))
    publish(scale.run(options, config, variant, arithmetic, print_progress), output)
    return Exit.OK
