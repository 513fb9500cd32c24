"""`worker bench pipeline`."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, network, print_progress, publish
from worker.contract import settings
from worker.contract.console import Exit, FiniteRange

_SECONDS, _ROUNDS = 40.0, 3
_QUICK_SECONDS, _QUICK_ROUNDS = 12.0, 1

EPILOG = """\b
Examples:
  worker bench pipeline --quick --output bench
  MASKMILL_MODEL__SOURCE=/models/birefnet_lite MASKMILL_MODEL__SIZE=512 worker bench pipeline --output bench

\b
The network is that of the settings. It is loaded twice: by the workers, and for the inference ceiling.
"""


@click.command("pipeline", epilog=EPILOG)
@click.option("--seconds", type=FiniteRange(min=1), help=f"Duration of one job. [{_SECONDS:g}]")
@click.option(
    "--rounds", type=click.IntRange(min=1), help=f"Jobs, each between two turns of the network alone. [{_ROUNDS}]"
)
@click.option(
    "--megapixels",
    type=FiniteRange(min=0.01, max=100),
    default=2.0,
    show_default=True,
    help="Size of the JPEG.",
)
@click.option(
    "--photo",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Photograph to scale to that size; by default a generated picture.",
)
@click.option("--quick", is_flag=True, help=f"One job of {_QUICK_SECONDS:g} s.")
@OUTPUT
def pipeline_command(
    *, seconds: float | None, rounds: int | None, megapixels: float, photo: Path | None, quick: bool, output: Path
) -> int:
    """Compare S3 to S3 with the inference ceiling: the same network alone, on the same cores, in the same run.

    An embedded Redis and S3 server run on these cores too. Also measures stage times, CPU time per image outside
    inference, the share of busy cores while work waits, and start-up time.
    """
    from worker.bench import pipeline, report

    report.check_writable(output)
    config = settings.load()
    config, variant, arithmetic = network(config)
    options = pipeline.PipelineOptions(
        seconds=seconds or (_QUICK_SECONDS if quick else _SECONDS),
        rounds=rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
        megapixels=megapixels,
        photo=photo,
    )
    publish(pipeline.run(options, config, variant, arithmetic, print_progress), output)
    return Exit.OK
