"""`worker bench pipeline`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from worker.cli.bench_output import OUTPUT, network, say, show, write
from worker.contract import settings
from worker.contract.console import Exit

_SECONDS, _ROUNDS = 40.0, 3
_QUICK_SECONDS, _QUICK_ROUNDS = 12.0, 1

EPILOG = """\b
Examples:
  worker bench pipeline --quick --output bench
  MASKMILL_MODEL__SOURCE=/models/birefnet_lite MASKMILL_MODEL__SIZE=512 worker bench pipeline --output bench

\b
The network is that of the settings. It is loaded twice: by the workers, and for the bare limit.
"""


@click.command("pipeline", epilog=EPILOG)
@click.option("--seconds", type=click.FloatRange(min=1), help=f"Of one job. [{_SECONDS:g}]")
@click.option("--rounds", type=click.IntRange(min=1), help=f"Jobs, each between two bare turns. [{_ROUNDS}]")
@click.option(
    "--megapixels", type=click.FloatRange(min=0.01, max=100), default=2.0, show_default=True, help="Of the JPEG."
)
@click.option(
    "--photo",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Photograph to scale to that size; without, a generated picture.",
)
@click.option("--quick", is_flag=True, help=f"One job of {_QUICK_SECONDS:g} s.")
@OUTPUT
def pipeline_command(
    *, seconds: float | None, rounds: int | None, megapixels: float, photo: Path | None, quick: bool, output: Path
) -> int:
    """From S3 to S3, against the bare limit of the same network on the same cores in the same run.

    With an embedded Redis and S3 server on these cores: stage times, CPU time per image beside inference, how busy the
    cores are while work waits, start-up time.
    """
    measure(
        output,
        seconds=seconds or (_QUICK_SECONDS if quick else _SECONDS),
        rounds=rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
        megapixels=megapixels,
        photo=photo,
    )
    return Exit.OK


def measure(
    output: Path, *, seconds: float, rounds: int, megapixels: float = 2.0, photo: Path | None = None
) -> dict[str, Any]:
    """Run, write and show; the report."""
    from worker.bench import pipeline, pipeline_report, report

    report.check_writable(output)
    config = settings.load()
    variant, arithmetic = network(config)
    options = pipeline.Options(seconds=seconds, rounds=rounds, megapixels=megapixels, photo=photo)
    found = pipeline.run(options, config, variant, arithmetic, say)
    write(found, output, pipeline_report.PIPELINE_JSON, pipeline_report.PIPELINE_PNG, pipeline_report.draw)
    show(
        pipeline_report.title(found),
        pipeline_report.HEADINGS,
        pipeline_report.rows(found),
        pipeline_report.remarks(found),
        [pipeline_report.README_HEADINGS, pipeline_report.readme_line(found)],
    )
    return found
