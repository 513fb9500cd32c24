"""`worker model import`: import a network that others have published as ONNX or OpenVINO IR."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from worker.cli.model_convert import exit_on_sigterm
from worker.cli.model_source import JSON, print_warnings
from worker.contract import console
from worker.contract.console import Exit
from worker.contract.input_size import InputSize
from worker.convert import importing
from worker.convert.birefnet.tile_order import TileOrder
from worker.convert.importing import Family, ImportReport, ImportRequest, LicenceFacts

_EXAMPLES = """\b
Examples:
  worker model import u2netp.onnx --output bundles/u2netp
  worker model import u2netp.onnx --precision fp32,int8 --calibration photos --output bundles/u2netp
  worker model import matting.onnx --family modnet --size 512x768 --output bundles/matting
  worker model import own.onnx --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --output bundles/own
"""

_ONE, _THREE = 1, 3


def _size(_: click.Context, __: click.Parameter, text: str | None) -> InputSize | None:
    if text is None:
        return None
    try:
        return InputSize.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _channels(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, float, float] | None:
    """Parse one number for all channels, or three."""
    if text is None:
        return None
    try:
        numbers = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) == _ONE:
        numbers *= _THREE
    if len(numbers) != _THREE:
        raise click.BadParameter(f"{text!r}: give one number, or three, comma-separated")
    return numbers[0], numbers[1], numbers[2]


def _precisions(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    unknown = [name for name in names if name not in ("fp32", "fp16", "int8")]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: choose from fp32,fp16,int8")
    return names


@click.command("import", epilog=_EXAMPLES)
@click.argument("source", metavar="FILE|FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the bundle; an existing bundle is replaced at the end.",
)
@click.option(
    "--family",
    type=click.Choice([family.value for family in Family]),
    show_default="told from the graph",
    help="Family of the network, which says how it is fed.",
)
@click.option("--size", callback=_size, metavar="HEIGHTxWIDTH", help="Input size, for a file that leaves it open.")
@click.option("--mean", callback=_channels, metavar="R,G,B", help="Mean of each channel, on the scale 0-1 or 0-255.")
@click.option("--std", callback=_channels, metavar="R,G,B", help="Deviation of each channel, on the same scale.")
@click.option(
    "--input-scaling",
    type=click.Choice(["fixed", "picture_maximum"]),
    show_default="that of the family",
    help="picture_maximum: divide each picture by its largest value first.",
)
@click.option("--output-name", metavar="NAME", show_default="the first", help="Output that holds the mask.")
@click.option(
    "--activation",
    type=click.Choice(["auto", "none", "sigmoid"]),
    default="auto",
    show_default=True,
    help="none: the output is a probability; sigmoid: it is logits; auto: look at the graph and run two pictures.",
)
@click.option(
    "--tile-order",
    type=click.Choice(["auto", *TileOrder]),
    default="auto",
    show_default=True,
    help="BiRefNet: order of the image tiles in training; auto: the one whose masks of photographs are crisper.",
)
@click.option("--name", metavar="NAME", show_default="that of the file", help="Name of the model in the bundle.")
@click.option(
    "--precision",
    "precisions",
    callback=_precisions,
    metavar="fp32,fp16,int8",
    show_default="that of the file",
    help="Precisions, comma-separated. int8 is written only if its masks stay those of fp32 (extra maskmill[convert]).",
)
@click.option(
    "--calibration",
    metavar="FOLDER",
    show_default="photographs of scikit-image",
    help="int8: photographs to calibrate with; every third one is kept to judge the result on.",
)
@click.option("--license", "licence", metavar="SPDX", help="Licence of the weights, to be kept with the bundle.")
@JSON
def import_command(
    *,
    source: Path,
    output: Path,
    family: str | None,
    std: tuple[float, float, float] | None,
    tile_order: str,
    licence: str | None,
    as_json: bool,
    **given: object,
) -> int:
    """Import a published network into a bundle.

    FILE is an .onnx file, or the .xml of an OpenVINO IR. The size, how the network is fed and what its output is are
    told from the file where it can be, and asked for where not; what was decided, and why, is printed and kept in the
    bundle. Its masks are compared with those of ONNX Runtime (extra maskmill[import]), and its peak memory is measured.

    With --precision fp32,int8 the network is also quantised, with its own normalisation. Constant input channels are
    taken off first, and noisy layers are left in float, until the masks of photographs that it was not calibrated on
    agree with those of FP32 (mean IoU at least 0.98, MAE at most 0.02). If that does not succeed, the bundle has no
    INT8 variant. `worker model show` shows the steps and their figures.
    """
    request = ImportRequest(
        source=source,
        output=output,
        family=Family(family) if family else None,
        scale=std,
        tile_order=None if tile_order == "auto" else TileOrder(tile_order),
        licence=LicenceFacts.of(licence),
        **given,  # type: ignore[arg-type]  # click has validated them
    )
    began = time.monotonic()

    def on_progress(step: str) -> None:
        console.err.print(f"{time.monotonic() - began:6.1f} s  {step}", markup=False, soft_wrap=True)

    with exit_on_sigterm():
        report = importing.import_network(request, on_progress)
    if as_json:
        console.print_json(report.as_dict())
    else:
        _print(report)
    print_warnings(report.warnings)
    return Exit.OK


def _print(report: ImportReport) -> None:
    lines = [str(decision) for decision in report.decisions]
    lines.append(str(report.verification))
    if report.int8:
        lines += _int8_lines(report.int8)
    lines += [
        f"peak memory of {precision} in {arithmetic}: {peak.process_mib} MiB and {peak.stream_mib} MiB per stream"
        for precision, measured in report.memory.items()
        for arithmetic, peak in measured.items()
    ]
    lines += [f"{report.output}: {report.name} {report.size.short} {', '.join(report.precisions)}"]
    for line in lines:
        console.out.print(line, markup=False, soft_wrap=True)


def _int8_lines(int8: dict[str, Any]) -> list[str]:
    """Say which forms were tried; a last sentence about a network that is not offered is a warning of its own."""
    lines = [
        f"INT8: {step['what']}: IoU {step['iou']:.4f} (worst {step['worst_iou']:.4f}), MAE {step['mae']:.4f}, "
        f"{step['core_seconds']:.3f} core-s per picture (FP32 {int8['fp32_core_seconds']:.3f})"
        for step in int8["steps"]
    ]
    pictures = int8["pictures"]
    shown = f"{pictures['source']}: calibrated on {pictures['calibrated_on']}, judged on {pictures['judged_on']}"
    return [*lines, f"INT8: {shown}", *([str(int8["summary"])] if int8["offered"] else [])]
