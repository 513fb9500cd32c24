"""What the `worker model` commands share: the SOURCE argument, the S3 port if it is needed, and a bar."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from worker.contract import console
from worker.contract.settings import ModelSettings, Settings
from worker.contract.storage.s3 import ObjectStore
from worker.cpu import isa, topology
from worker.cpu.isa import Recommendation
from worker.model.format.layout import PRECISIONS, SIZE_MULTIPLE
from worker.model.sources.progress import OnProgress

SOURCE = click.argument("source", required=False)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object instead of words.")
NAME = click.option("--name", help="Model name, where the source holds several.")
SIZE = click.option("--size", type=click.IntRange(SIZE_MULTIPLE), help="Input side in pixels; default: the largest.")
PRECISION = click.option(
    "--precision", type=click.Choice(["auto", *PRECISIONS]), help="Variant; auto: what this CPU runs best."
)


def asked(config: Settings, source: str | None, **changes: Any) -> ModelSettings:
    """The model settings with what the command line says otherwise."""
    given = {key: value for key, value in {"source": source, **changes}.items() if value is not None}
    return config.model.model_copy(update=given)


def advice() -> Recommendation:
    """What this CPU runs best."""
    machine = topology.read()
    return isa.recommend(machine.flags, machine.memory_bytes)


@contextlib.contextmanager
def objects(config: Settings, source: str) -> Iterator[ObjectStore | None]:
    """The S3 port for an `s3://` source, else None."""
    if not source.startswith("s3://"):
        yield None
        return
    with ObjectStore(config.s3) as store:
        yield store


@contextlib.contextmanager
def bar() -> Iterator[OnProgress | None]:
    """A progress bar per file on standard error, if that is a terminal; else None."""
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

        def report(name: str, done: int, total: int) -> None:
            if name not in rows:
                rows[name] = display.add_task(name.rpartition("/")[2], total=total)
            display.update(rows[name], completed=done)

        yield report


def warn(warnings: tuple[str, ...] | list[str]) -> None:
    """On standard error, so that JSON stays clean."""
    for warning in warnings:
        console.err.print(f"! {warning}", markup=False, soft_wrap=True, style="yellow")
