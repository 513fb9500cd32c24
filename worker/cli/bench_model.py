"""`worker bench model`."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, print_progress, publish
from worker.cli.input_size import INPUT_SIZE
from worker.contract import settings
from worker.contract.console import Exit
from worker.contract.input_size import InputSize

_ROUNDS = 5

EPILOG = """\b
Examples:
  worker bench model --quick --output bench            random weights, 512, two rounds
  worker bench model --checkpoint model.safetensors --bundle birefnet --size 512 --size 1024 --output bench

\b
Each turn loads its network in a new process; one runs at a time and needs 1 to 2 GB of memory at 512, up to 5 GB at
1024. With --bundle also give the checkpoint it was converted from, so that all contenders run the same weights.
PyTorch, ONNX Runtime (with PyTorch and onnx to export the network) and matplotlib are used if installed.
"""


@click.command("model", epilog=EPILOG)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Published weights (model.safetensors); random weights by default.",
)
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Measure the variants in this folder; by default the network is built in FP32.",
)
@click.option("--size", "sizes", type=INPUT_SIZE, multiple=True, help="Network input, repeatable. [512]")
@click.option("--rounds", type=click.IntRange(min=2), help=f"Turns of each contender. [{_ROUNDS}]")
@click.option("--quick", is_flag=True, help="Two rounds, one stream on all cores, no profile.")
@OUTPUT
def model_command(
    *,
    checkpoint: Path | None,
    bundle: Path | None,
    sizes: tuple[InputSize, ...],
    rounds: int | None,
    quick: bool,
    output: Path,
) -> int:
    """Compare BiRefNet-lite converted plainly, in maskmill's variants, and in other runtimes.

    All contenders take turns on the same cores: the first core set of `worker plan`.
    """
    from worker.bench import model, report

    config = settings.load()
    options = model.ModelOptions(
        sizes=sizes or (InputSize.square(512),),
        rounds=rounds or (model.QUICK_ROUNDS if quick else _ROUNDS),
        quick=quick,
        checkpoint=checkpoint,
        bundle=bundle,
    )
    report.check_writable(output)
    publish(model.run(options, config.plan, print_progress), output)
    return Exit.OK
