"""`worker bench images`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from worker.cli.input_size import INPUT_SIZE
from worker.contract import console
from worker.contract.console import Exit
from worker.contract.input_size import InputSize

_ROUNDS, _QUICK_ROUNDS = 7, 3

EPILOG = """\b
Examples:
  worker bench images --quick --output bench
  worker bench images --megapixels 2 --megapixels 12 --size 1024 --photo shoe.jpg --output bench
"""


@click.command("images", epilog=EPILOG)
@click.option(
    "--megapixels",
    type=click.FloatRange(min=0.01, max=100),
    multiple=True,
    default=(2.0,),
    show_default=True,
    help="Of the JPEG, repeatable.",
)
@click.option("--size", type=INPUT_SIZE, default="512", show_default=True, help="Size of the network input.")
@click.option("--rounds", type=click.IntRange(min=1), help=f"Turns of each case. [{_ROUNDS}]")
@click.option(
    "--photo",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Photograph to scale to each size; without, a generated picture.",
)
@click.option("--quick", is_flag=True, help="Three rounds, four cases.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for images.json and images.png.",
)
def images_command(
    *, megapixels: tuple[float, ...], size: InputSize, rounds: int | None, photo: Path | None, quick: bool, output: Path
) -> int:
    """Decode, resize and encode: CPU time per image and megapixel, for every kind of output.

    Against scripts that do the same with Pillow and float tensors. On one core, without a network.
    """
    from worker.bench import images, images_report, report
    from worker.bench.harness import plot

    options = images.Options(
        megapixels=megapixels,
        size=size,
        rounds=rounds or (_QUICK_ROUNDS if quick else _ROUNDS),
        quick=quick,
        photo=photo,
    )
    report.check_writable(output)
    found = images.run(options, lambda line: console.err.print(line, style="dim", markup=False))
    written = [report.write_json(found, output, images_report.IMAGES_JSON)]
    if reason := plot.missing():
        console.err.print(f"no plot: {reason}", markup=False)
    else:
        written.append(images_report.draw(found, output / images_report.IMAGES_PNG))
    _show(found)
    for path in written:
        console.out.print(f"written: {path}", markup=False, soft_wrap=True)
    return Exit.OK


def _show(found: dict[str, Any]) -> None:
    from worker.bench import images_report

    wide = Console(width=max(console.out.width, 120), highlight=False)
    for one in found["results"]:
        table = Table(title=images_report.title(found, one), title_justify="left", box=None, header_style="bold")
        for index, heading in enumerate(images_report.HEADINGS):
            table.add_column(heading, justify="right" if index else "left", no_wrap=True)
        for row in images_report.rows(one):
            table.add_row(*row)
        wide.print(table)
        wide.print()
    console.out.print(images_report.README_HEADINGS, markup=False, soft_wrap=True)
    for one in found["results"]:
        console.out.print(images_report.readme_line(found, one), markup=False, soft_wrap=True)
