"""`worker model convert`: convert a published checkpoint to a bundle."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import click
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from worker.cli.input_size import INPUT_SIZE
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.input_size import InputSize
from worker.convert import variants
from worker.convert.birefnet.presets import DEFAULT_SIZES, find_preset
from worker.convert.birefnet.rewrites import Rewrite
from worker.convert.birefnet.tile_order import TileOrder
from worker.convert.calibration import DEFAULT_IMAGES
from worker.convert.quantisation_config import Overflow, QuantisationConfig
from worker.convert.request import BuiltVariant, ConversionProgress, ConversionRequest, ConversionResult
from worker.model.format.layout import PRECISIONS


def _precisions(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """Parse a comma-separated list and remove duplicates."""
    names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in PRECISIONS]
    if unknown or not names:
        raise click.BadParameter(f"{', '.join(unknown) or 'nothing'}: choose from {','.join(PRECISIONS)}")
    return tuple(names)


_EXAMPLES = """\b
Examples:
  worker model convert --checkpoint hf://ZhengPeng7/BiRefNet_lite --output bundle
  worker model convert --checkpoint hf://ZhengPeng7/BiRefNet_lite-2K --size 1440x2560 --output bundle
  worker model convert --checkpoint model.safetensors --size 512 --precision fp32,int8 \\
    --calibration s3://photos/sample/ --output bundle
"""


@click.command("convert", epilog=_EXAMPLES)
@click.option(
    "--checkpoint",
    required=True,
    metavar="FILE|hf://OWNER/NAME[@REV]",
    help="The file model.safetensors, or the repository that holds it.",
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=INPUT_SIZE,
    show_default="those of the checkpoint, else 1024 and 512",
    help="Input size in pixels, multiples of 32; one number for a square; repeatable.",
)
@click.option(
    "--precision",
    "precisions",
    default=",".join(PRECISIONS),
    show_default=True,
    callback=_precisions,
    help="Precisions, comma-separated.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the bundle; an existing bundle is replaced at the end.",
)
@click.option(
    "--calibration",
    metavar="FOLDER|s3://BUCKET/PREFIX",
    show_default="photographs of scikit-image",
    help="Photographs for the INT8 ranges and for the comparison of the variants.",
)
@click.option(
    "--calibration-images",
    type=click.IntRange(min=1),
    default=DEFAULT_IMAGES,
    show_default=True,
    help="Maximum number of photographs.",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(sorted(rewrite.value for rewrite in Rewrite)),
    help="Leave out an exact rewrite of the network; repeatable.",
)
@click.option(
    "--float-offsets/--int8-offsets",
    default=QuantisationConfig.float_offsets,
    show_default=True,
    help="INT8: whether the layers that compute sampling offsets stay in float.",
)
@click.option(
    "--smooth-quant/--no-smooth-quant",
    "smooth",
    default=QuantisationConfig.smooth,
    show_default=True,
    help="INT8: use SmoothQuant; the network grows by 28 MB.",
)
@click.option(
    "--seven-bit",
    "overflow",
    type=click.Choice([overflow.value for overflow in Overflow]),
    default=QuantisationConfig.overflow.value,
    show_default=True,
    help="INT8: where weights have 7 bits, to avoid overflow on CPUs without VNNI.",
)
@click.option(
    "--tile-order",
    type=click.Choice(["auto", *(order.value for order in TileOrder)]),
    default="auto",
    show_default=True,
    help="Order of the image tiles in training; auto: known for published checkpoints, else the one whose masks of "
    "photographs are crisper.",
)
@click.option("--name", help="Name of the network in file names.", show_default="that of the checkpoint")
@click.option("--force", is_flag=True, help="Keep variants whose masks disagree with FP32.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per variant.")
def convert_command(
    *,
    checkpoint: str,
    sizes: tuple[InputSize, ...],
    precisions: tuple[str, ...],
    output: Path,
    calibration: str | None,
    calibration_images: int,
    without: tuple[str, ...],
    float_offsets: bool,
    smooth: bool,
    overflow: str,
    tile_order: str,
    name: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Convert a checkpoint of the BiRefNet family to a bundle.

    The backbone, Swin-T (lite) or Swin-L, is read from the checkpoint.

    The bundle holds a variant for each requested size and precision. Each variant is compared with FP32 on photographs.
    An existing bundle in --output stays until the new one is complete.
    """
    request = ConversionRequest(
        checkpoint=checkpoint,
        output=output,
        sizes=sizes or _default_sizes(checkpoint),
        precisions=precisions,
        calibration_source=calibration,
        calibration_images=calibration_images,
        without=frozenset(map(Rewrite, without)),
        quantisation=QuantisationConfig(float_offsets, smooth, Overflow(overflow)),
        force=force,
        tile_order=None if tile_order == "auto" else TileOrder(tile_order),
        name=name,
    )
    config = settings.load()
    with exit_on_sigterm(), _progress() as watch:
        report = variants.convert(request, config, watch)
    for warning in report.warnings:
        console.err.print(f"warning: {warning}", markup=False, soft_wrap=True)
    _print(report, as_json=as_json)
    return Exit.OK


def _default_sizes(checkpoint: str) -> tuple[InputSize, ...]:
    preset = find_preset(checkpoint)
    return preset.sizes if preset else DEFAULT_SIZES


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into SystemExit, so that unfinished files are removed as after Ctrl-C."""

    def exit_process(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    previous = signal.signal(signal.SIGTERM, exit_process)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[ConversionProgress], None]]:
    """Yield a callback that shows a bar on a terminal, else prints a line to standard error at each step."""
    if not console.err.is_terminal:
        yield _Lines()
        return
    columns = SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console.err, transient=True) as bar:
        task = bar.add_task("")

        def show(event: ConversionProgress) -> None:
            part = event.done / event.total if event.total else 0
            count = f" {event.done}/{event.total}" if event.total else ""
            bar.update(task, total=event.steps, completed=event.step + part, description=event.what + count)

        yield show


class _Lines:
    """Prints a line to standard error when the step changes."""

    def __init__(self) -> None:
        self._last = ""
        self._began = time.monotonic()

    def __call__(self, event: ConversionProgress) -> None:
        if event.what != self._last:
            self._last = event.what
            seconds = time.monotonic() - self._began
            console.err.print(f"{seconds:6.1f} s  {event.step}/{event.steps}  {event.what}", soft_wrap=True)


def _print(report: ConversionResult, *, as_json: bool) -> None:
    if as_json:
        for built in report.variants:
            order = report.tile_order and report.tile_order.as_dict()
            console.print_json(_as_dict(built) | {"output": str(report.output), "tile_order": order})
        return
    table = Table("variant", "MB", "build s", "peak MiB", "MAE", "IoU", "max", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for built in report.variants:
        got = built.agreement
        numbers = (f"{got.mae:.4f}", f"{got.iou:.4f}", f"{got.max_abs:.3f}") if got else ("-", "-", "-")
        table.add_row(
            built.label, f"{built.bytes / 1e6:.1f}", f"{built.build_seconds:.1f}", str(built.peak_memory_mib), *numbers
        )
    console.out.print(table)
    pictures = next((built.agreement.pictures for built in report.variants if built.agreement), 0)
    if pictures:
        console.out.print(f"MAE, IoU at 0.5 and largest difference (max) from the FP32 masks, on {pictures} pictures")
    if report.tile_order:
        line = f"image tiles by {report.tile_order.order}: {report.tile_order.reason}"
        console.out.print(line, markup=False, soft_wrap=True)
    console.out.print(str(report.output), markup=False, soft_wrap=True)


def _as_dict(built: BuiltVariant) -> dict[str, object]:
    return {
        "size": built.size.as_json(),
        "precision": built.precision,
        "bytes": built.bytes,
        "build_seconds": built.build_seconds,
        "peak_memory_mib": built.peak_memory_mib,
        "agreement": built.agreement and built.agreement.as_dict(),
        "complaint": built.complaint,
    }
