"""`worker bench`: measurements on this machine, written as JSON, a table and a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from worker.cli.bench_all import all_command
from worker.cli.bench_fleet import fleet_command
from worker.cli.bench_images import images_command
from worker.cli.bench_pipeline import pipeline_command
from worker.cli.bench_quality import quality_command
from worker.cli.bench_scale import scale_command
from worker.contract import console, settings
from worker.contract.console import Exit

_ROUNDS = 5

EPILOG = """\b
Examples:
  worker bench model --quick --output bench            random weights, 512, two rounds
  worker bench model --checkpoint model.safetensors --bundle birefnet --size 512 --size 1024 --output bench

\b
Each turn loads its network anew in a process of its own, of which one runs at a time: 1 to 2 GB of memory at 512, up to
5 GB at 1024. With --bundle also give the checkpoint it came from, so that all run the same weights. PyTorch, ONNX
Runtime (with PyTorch and onnx to export the network) and matplotlib are used if installed.
"""


@click.group("bench")
def bench_command() -> None:
    """Measure on this machine."""


for command in (images_command, pipeline_command, scale_command, fleet_command, quality_command, all_command):
    bench_command.add_command(command)


@bench_command.command("model", epilog=EPILOG)
@click.option(
    "--checkpoint",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Published weights (model.safetensors); random ones without.",
)
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Measure the variants in this folder; without, the network is built in FP32.",
)
@click.option("--size", "sizes", type=click.IntRange(min=32), multiple=True, help="Input side, repeatable. [512]")
@click.option("--rounds", type=click.IntRange(min=2), help=f"Turns of each contender. [{_ROUNDS}]")
@click.option("--quick", is_flag=True, help="Two rounds, one stream on all cores, no profile.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for model.json and model.png.",
)
def model_command(
    *,
    checkpoint: Path | None,
    bundle: Path | None,
    sizes: tuple[int, ...],
    rounds: int | None,
    quick: bool,
    output: Path,
) -> int:
    """Compare BiRefNet-lite as converted plainly, as maskmill runs it, and in other runtimes.

    All contenders take turns on the same cores: the first core set of `worker plan`.
    """
    from worker.bench import model, report
    from worker.bench.harness import plot

    config = settings.load()
    options = model.Options(
        sizes=sizes or (512,),
        rounds=rounds or (model.QUICK_ROUNDS if quick else _ROUNDS),
        quick=quick,
        checkpoint=checkpoint,
        bundle=bundle,
    )
    report.check_writable(output)
    found = model.run(options, config.plan, lambda line: console.err.print(line, style="dim", markup=False))
    written = [report.write_json(found, output)]
    if reason := plot.missing():
        console.err.print(f"no plot: {reason}", markup=False)
    else:
        written.append(plot.draw(found, output / report.MODEL_PNG))
    _show(found)
    for path in written:
        console.out.print(f"written: {path}", markup=False, soft_wrap=True)
    return Exit.OK


def _show(found: dict[str, Any]) -> None:
    from worker.bench import report

    wide = Console(width=max(console.out.width, 120), highlight=False)
    for one in found["results"]:
        table = Table(title=report.title(one), title_justify="left", box=None, pad_edge=False, header_style="bold")
        for index, heading in enumerate(report.HEADINGS):
            table.add_column(heading, justify="right" if index else "left", no_wrap=True)
        for row in report.rows(one):
            table.add_row(*row)
        wide.print(table)
        wide.print()
    for line in report.remarks(found):
        console.out.print(f"- {line}", markup=False, soft_wrap=True)
    console.out.print(report.README_HEADINGS, markup=False, soft_wrap=True)
    for one in found["results"]:
        console.out.print(report.readme_line(found, one), markup=False, soft_wrap=True)


SUBMIT_EPILOG = """\b
Examples:
  worker bench submit --keys 10000 --output bench              a minute
  worker bench submit --keys 1000000 --keys 10000000 --output bench

\b
Starts a Redis and an S3 server of its own (extra [standalone]) in the folder for temporary files, which needs 100 bytes
a key. The installation that the settings name is not touched.
"""


@bench_command.command("submit", epilog=SUBMIT_EPILOG)
@click.option("--keys", type=click.IntRange(min=2), multiple=True, help="Images of a job, repeatable. [1000000]")
@click.option(
    "--plain-messages",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="Messages of plain Celery, from which its cost is extrapolated.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for submit.json and submit.png.",
)
def submit_command(*, keys: tuple[int, ...], plain_messages: int, output: Path) -> int:
    """Submit jobs of any size without a picture, and weigh them: time, memory, status, cancel, recover.

    Beside plain Celery with one message per image. Only the listing is made up: the code that submits, Redis and S3
    are real.
    """
    from worker.bench import report, submit, submit_report
    from worker.bench.harness import plot

    report.check_writable(output)
    options = submit.Options(keys or (1_000_000,), plain_messages)
    found = submit.run(options, lambda line: console.err.print(line, style="dim", markup=False))
    written = [report.write_json(found, output, submit_report.SUBMIT_JSON)]
    if reason := plot.missing():
        console.err.print(f"no plot: {reason}", markup=False)
    else:
        written.append(submit_report.draw(found, output / submit_report.SUBMIT_PNG))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(submit_report.HEADINGS):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    for row in submit_report.rows(found):
        table.add_row(*row)
    Console(width=max(console.out.width, 180), highlight=False).print(table)
    for line in submit_report.remarks(found):
        console.out.print(f"- {line}", markup=False, soft_wrap=True)
    console.out.print(submit_report.README_HEADINGS, markup=False, soft_wrap=True)
    for one in found["results"]:
        console.out.print(submit_report.readme_line(found, one), markup=False, soft_wrap=True)
    for path in written:
        console.out.print(f"written: {path}", markup=False, soft_wrap=True)
    return Exit.OK
