"""`worker bench scale`."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, network, say, show, write
from worker.contract import settings
from worker.contract.console import Exit

_SECONDS, _QUICK_SECONDS = 30.0, 8.0

EPILOG = """\b
Examples:
  worker bench scale --quick --output bench
  MASKMILL_PLAN__PROCESSES=8 worker bench scale --output bench
"""


@click.command("scale", epilog=EPILOG)
@click.option("--seconds", type=click.FloatRange(min=1), help=f"Of a bare turn and a job at each point. [{_SECONDS:g}]")
@click.option("--quick", is_flag=True, help=f"{_QUICK_SECONDS:g} s each.")
@OUTPUT
def scale_command(*, seconds: float | None, quick: bool, output: Path) -> int:
    """What each further core set adds: bare, and from S3 to S3.

    With the network of the settings on 1, 2, 4, ... core sets of the plan (single cores, where the plan has one set).
    """
    measure(output, seconds=seconds or (_QUICK_SECONDS if quick else _SECONDS))
    return Exit.OK


def measure(output: Path, *, seconds: float) -> None:
    """Run, write and show."""
    from worker.bench import report, scale, scale_report

    report.check_writable(output)
    config = settings.load()
    variant, arithmetic = network(config)
    found = scale.run(scale.Options(seconds), config, variant, arithmetic, say)
    write(found, output, scale_report.SCALE_JSON, scale_report.SCALE_PNG, scale_report.draw)
    show(
        scale_report.title(found),
        scale_report.HEADINGS,
        scale_report.rows(found),
        [],
        [scale_report.README_HEADINGS, scale_report.readme_line(found)],
    )
