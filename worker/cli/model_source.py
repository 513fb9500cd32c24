"""Shared by the `worker model` commands: arguments and options, the S3 client, and a progress bar."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from worker.cli.input_size import INPUT_SIZE
from worker.contract import console
from worker.contract.settings import ModelSettings, Settings
from worker.contract.storage.s3 import ObjectStore
from worker.model.format.layout import PRECISIONS
from worker.model.sources.progress import OnProgress

SOURCE = click.argument("source", required=False)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
NAME = click.option("--name", help="Model name, required if SOURCE holds several models.")
SIZE = click.option(
    "--size",
    type=INPUT_SIZE,
    show_default="the largest",
    help="Input size in pixels; one number for a square.",
)
PRECISION = click.option(
    "--precision", type=click.Choice(["auto", *PRECISIONS]), help="Precision; auto: the one that this CPU runs best."
)


def model_settings(config: Settings, source: str | None, **changes: Any) -> ModelSettings:
    """Return the model settings, overridden by the values given on the command line."""
    given = {key: value for key, value in {"source": source, **changes}.items() if value is not None}
    return config.model.model_copy(update=given)


@contextlib.contextmanager
def object_store(config: Settings, source: str) -> Iterator[ObjectStore | None]:
    """Open the S3 client for an `s3://` source; yield None for others."""
    if not source.startswith("s3://"):
        yield None
        return
    with ObjectStore(config.s3) as store:
        yield store


@contextlib.contextmanager
def progress_bar() -> Iterator[OnProgress | None]:
    """Show a progress bar per file and yield its callback; yield None if standard error is not a terminal."""
    if not console.err.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console.err) as display:
        rows: dict[str, Any] = {}

        def on_progress(name: str, done: int, total: int) -> None:
            if name not in rows:
                rows[name] = display.add_task(name.rpartition("/")[2], total=total)
            display.update(rows[name], completed=done)

        yield on_progress


def print_warnings(warnings: tuple[str, ...] | list[str]) -> None:
    """Print warnings to standard error, which keeps JSON on standard output valid."""
    for warning in warnings:
        console.err.print(f"! {warning}", markup=False, soft_wrap=True, style="yellow")
