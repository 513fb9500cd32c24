"""What the commands of `worker bench` share: the network of the settings, files, tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from worker.contract import console
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore

if TYPE_CHECKING:
    from worker.model.format.variant import Variant

OUTPUT = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for a JSON file and a plot.",
)


def say(line: str) -> None:
    """One line of progress."""
    console.err.print(line, style="dim", markup=False)


def network(config: Settings) -> tuple[Variant, str]:
    """The variant that a worker with these settings runs, and the arithmetic of its float part."""
    from worker.model.loading import find_bundle, recommendation

    advice = recommendation()
    with ObjectStore(config.s3) as store:
        bundle = find_bundle(config, store, advice)
    asked = config.model.inference_precision
    return bundle.variant, advice.inference_precision if asked == "auto" else asked


def write(
    found: dict[str, Any], output: Path, name: str, plot_name: str, draw: Callable[[dict[str, Any], Path], Path]
) -> None:
    """The report as JSON and, with matplotlib, as a plot."""
    from worker.bench import report
    from worker.bench.harness import plot

    written = [report.write_json(found, output, name)]
    if reason := plot.missing():
        console.err.print(f"no plot: {reason}", markup=False)
    else:
        written.append(draw(found, output / plot_name))
    for path in written:
        console.out.print(f"written: {path}", markup=False, soft_wrap=True)


def show(
    title: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    remarks: Sequence[str],
    readme: Sequence[str],
) -> None:
    """A table, sentences, and lines for a README."""
    wide = Console(width=max(console.out.width, 120), highlight=False)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    wide.print(table)
    wide.print()
    for line in remarks:
        console.out.print(f"- {line}", markup=False, soft_wrap=True)
    for line in readme:
        console.out.print(line, markup=False, soft_wrap=True)
