"""What the commands of `worker bench` share: options, progress, the network of the settings, reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from worker.contract import console
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore

if TYPE_CHECKING:
    from worker.bench.report import BenchmarkReport
    from worker.model.format.variant import Variant

_MIN_WIDTH = 180
"""Columns of the widest table, whatever the terminal."""

OUTPUT = click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the JSON file and the plot.",
)


def print_progress(line: str) -> None:
    """Print one line of progress to standard error."""
    console.err.print(line, style="dim", markup=False)


def network(config: Settings) -> tuple[Settings, Variant, str]:
    """Return the variant that a worker with these settings runs, and the arithmetic of its float part.

    The settings come back with the source of the variant: `worker start` with a cache of its own would fetch the
    network that the given ones name, while this machine may fall back to another.
    """
    from worker.model.loading import find_bundle, recommendation

    advice = recommendation()
    with ObjectStore(config.s3) as store:
        bundle = find_bundle(config, store, advice)
    asked = config.model.inference_precision
    found = config.model_copy(update={"model": config.model.model_copy(update={"source": bundle.source})})
    return found, bundle.variant, advice.inference_precision if asked == "auto" else asked


def publish(report: BenchmarkReport, output: Path) -> None:
    """Write the JSON document and the plot of a report, and print its tables.

    Without matplotlib there is no plot; a line says so.

    Raises:
        SetupError: a file cannot be written.
    """
    from worker.bench.harness.plot_style import why_no_plot
    from worker.bench.report import write_json

    written = [write_json(report.document, output / f"{report.name}.json")]
    if reason := why_no_plot():
        console.err.print(f"no plot: {reason}", markup=False)
    else:
        written.append(report.draw(output / f"{report.name}.png"))
    _show(report)
    for path in written:
        console.out.print(f"written: {path}", markup=False, soft_wrap=True)


def _show(report: BenchmarkReport) -> None:
    wide = console.SafeConsole(width=max(console.out.width, _MIN_WIDTH), highlight=False)
    for found in report.tables():
        if found.title:
            wide.print(found.title, style="italic", markup=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for index, heading in enumerate(found.headings):
            table.add_column(heading, justify="right" if index else "left", no_wrap=True)
        for row in found.rows:
            table.add_row(*row)
        wide.print(table)
        wide.print()
    for line in report.remarks():
        console.out.print(f"- {line}", markup=False, soft_wrap=True)
    for line in report.readme_table().as_markdown():
        console.out.print(line, markup=False, soft_wrap=True)
