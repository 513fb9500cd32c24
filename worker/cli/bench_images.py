"""`worker bench images`."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.bench_output import OUTPUT, print_progress, publish
from worker.cli.input_size import INPUT_SIZE
from worker.contract.console import Exit, FiniteRange
from worker.contract.input_size import InputSize

_ROUNDS, _QUICK_ROUNDS = 7, 3

EPILOG = """\b
Examples:
  worker bench images --quick --output bench
  worker bench images --megapixels 2 --megapixels 12 --size 1024 --photo shoe.jpg --output bench
  worker bench images --memory --megapixels 12 --output bench
"""


@click.command("images", epilog=EPILOG)
@click.option(
    "--megapixels",
    type=FiniteRange(min=0.01, max=100),
    multiple=True,
    default=(2.0,),
    show_default=True,
    help="Size of the JPEG, repeatable.",
)
@click.option("--size", type=INPUT_SIZE, default="512", show_default=True, help="Network input.")
@click.option("--rounds", type=click.IntRange(min=1), help=f"Turns of each case. [{_ROUNDS}]")
@click.option(
    "--photo",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Photograph to scale to each size; by default a generated picture.",
)
@click.option("--quick", is_flag=True, help="Three rounds, four cases.")
@click.option("--memory", is_flag=True, help="Measure peak memory instead of CPU time, with the largest --megapixels.")
@OUTPUT
def images_command(
    *,
    megapixels: tuple[float, ...],
    size: InputSize,
    rounds: int | None,
    photo: Path | None,
    quick: bool,
    memory: bool,
    output: Path,
) -> int:
    """Measure CPU time of decode, resize and encode, per image and megapixel, for every kind of output.

    Compares with scripts that do the same with Pillow and float tensors. Runs on one core, without a network. With
    --memory it measures the peak memory per pixel of every kind of input and output instead.
    """
    from worker.bench import image_memory, images, report

    if memory:
        if photo is not None or quick or rounds is not None:
            raise click.UsageError("--memory takes no --photo, --quick or --rounds")
        report.check_writable(output)
        publish(image_memory.run(max(megapixels), print_progress), output)
        return Exit.OK
    options = images.ImagesOptions(
        megapixels=megapixels,
        size=size,
        rounds=rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
        quick=quick,
        photo=photo,
    )
    report.check_writable(output)
    publish(images.run(options, print_progress), output)
    return Exit.OK
