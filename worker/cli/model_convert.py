"""`worker model convert`: a published checkpoint into a bundle."""

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

from worker.contract import console, settings
from worker.contract.console import Exit
from worker.convert import variants
from worker.convert.birefnet.rewrites import Rewrite
from worker.convert.calibration import DEFAULT_IMAGES
from worker.convert.quantisation_config import Overflow, QuantisationConfig
from worker.convert.request import BuiltVariant, ConversionProgress, ConversionRequest, ConversionResult
from worker.model.format.writer import PRECISIONS

_SIZES = (1024, 512)


def _precisions(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    """A comma-separated list, without repetitions."""
    asked = dict.fromkeys(word.strip() for word in text.split(",") if word.strip())
    unknown = [word for word in asked if word not in PRECISIONS]
    if unknown or not asked:
        raise click.BadParameter(f"{', '.join(unknown) or 'nothing'}: choose from {','.join(PRECISIONS)}")
    return tuple(asked)


_EXAMPLES = """\b
Examples:
  worker model convert --checkpoint hf://ZhengPeng7/BiRefNet_lite --output bundle
  worker model convert --checkpoint model.safetensors --size 512 --precision fp32,int8 \\
    --calibration s3://photos/sample/ --output bundle
"""


@click.command("convert", epilog=_EXAMPLES)
@click.option(
    "--checkpoint", required=True, metavar="FILE|hf://OWNER/NAME[@REV]", help="model.safetensors, or its repository."
)
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=int,
    default=_SIZES,
    show_default=True,
    help="Side in pixels; may be repeated.",
)
@click.option(
    "--precision",
    "precisions",
    default=",".join(PRECISIONS),
    show_default=True,
    callback=_precisions,
    help="Comma-separated.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the bundle; one that is there is replaced at the end.",
)
@click.option(
    "--calibration",
    metavar="FOLDER|s3://BUCKET/PREFIX",
    help="Photographs for INT8 ranges, and to compare variants on; those of scikit-image, if not given.",
)
@click.option(
    "--calibration-images", type=click.IntRange(min=1), default=DEFAULT_IMAGES, show_default=True, help="At most."
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(sorted(rewrite.value for rewrite in Rewrite)),
    help="Leave out an exact rewrite of the network; may be repeated.",
)
@click.option(
    "--float-offsets/--int8-offsets",
    default=QuantisationConfig.float_offsets,
    show_default=True,
    help="INT8: whether what computes sampling offsets stays in float.",
)
@click.option(
    "--smooth-quant/--no-smooth-quant",
    "smooth",
    default=QuantisationConfig.smooth,
    help="INT8: SmoothQuant; 28 MB more.",
)
@click.option(
    "--seven-bit",
    "overflow",
    type=click.Choice([overflow.value for overflow in Overflow]),
    default=QuantisationConfig.overflow.value,
    show_default=True,
    help="INT8: where weights take 7 bits, so that CPUs without VNNI do not overflow.",
)
@click.option("--force", is_flag=True, help="Keep variants whose masks disagree with FP32.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per variant.")
def convert_command(
    *,
    checkpoint: str,
    sizes: tuple[int, ...],
    precisions: tuple[str, ...],
    output: Path,
    calibration: str | None,
    calibration_images: int,
    without: tuple[str, ...],
    float_offsets: bool,
    smooth: bool,
    overflow: str,
    force: bool,
    as_json: bool,
) -> int:
    """Build BiRefNet-lite from its published checkpoint, in every size and precision asked for.

    Each variant is compared with FP32 on photographs. What is at DIR stays until all is well.
    """
    request = ConversionRequest(
        checkpoint=checkpoint,
        output=output,
        sizes=sizes,
        precisions=precisions,
        calibration_source=calibration,
        calibration_images=calibration_images,
        without=frozenset(map(Rewrite, without)),
        quantisation=QuantisationConfig(float_offsets, smooth, Overflow(overflow)),
        force=force,
    )
    config = settings.load()
    with _clean_end(), _shown() as watch:
        report = variants.convert(request, config, watch)
    for warning in report.warnings:
        console.err.print(f"warning: {warning}", markup=False, soft_wrap=True)
    _print(report, as_json=as_json)
    return Exit.OK


@contextlib.contextmanager
def _clean_end() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does: what was begun is removed."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[ConversionProgress], None]]:
    """A bar on a terminal, else a line on standard error at the start of each step."""
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
    """What is being done, once for each thing."""

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
            console.print_json(_as_dict(built) | {"output": str(report.output)})
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
        console.out.print(f"MAE, IoU at 0.5 and largest difference of the masks to FP32, on {pictures} pictures")
    console.out.print(str(report.output), markup=False, soft_wrap=True)


def _as_dict(built: BuiltVariant) -> dict[str, object]:
    return {
        "size": built.size,
        "precision": built.precision,
        "bytes": built.bytes,
        "build_seconds": built.build_seconds,
        "peak_memory_mib": built.peak_memory_mib,
        "agreement": built.agreement and built.agreement.as_dict(),
        "complaint": built.complaint,
    }
