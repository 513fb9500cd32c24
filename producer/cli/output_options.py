"""Options for the outputs of an image, shared by every command that submits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from producer.backgrounds import OutputRequest
from producer.sources.local import exists
from worker.contract import console, output_names
from worker.contract.errors import SettingsError
from worker.contract.outputs import ExifPolicy, ImageFormat, OutputKind, OutputOptions

_BOTH = {"both": (OutputKind.MASK.value, OutputKind.CUTOUT.value)}
_KINDS = [kind.value for kind in OutputKind]
_ALIASES = {"jpg": ImageFormat.JPEG.value}
_FORMATS = [*(form.value for form in ImageFormat), *_ALIASES]

_REQUIREMENTS: dict[str, tuple[str, Callable[[OutputOptions], bool]]] = {
    "mask_format": ("--output mask", lambda options: OutputKind.MASK in options.outputs),
    "quality": (
        "--format webp, avif or jpeg",
        lambda options: {options.format_of(kind) for kind in options.outputs} != {ImageFormat.PNG},
    ),
    "background": ("--output composite", lambda options: OutputKind.COMPOSITE in options.outputs),
    "exif": ("--output cutout or composite", lambda options: set(options.outputs) != {OutputKind.MASK}),
    "refine": ("--output cutout or composite", lambda options: set(options.outputs) != {OutputKind.MASK}),
    "crop_margin": ("--crop", lambda options: options.crop),
}
"""Option -> what it requires to have an effect, as text and as a test of the options."""


def _kinds(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Split the values at commas and check that each is a kind of output."""
    kinds: list[str] = []
    for word in ",".join(values).split(",") if values else ():
        kind = word.strip().lower()
        if kind not in _BOTH and kind not in _KINDS:
            raise click.BadParameter(f"{kind!r} is not one of {', '.join(_KINDS)}, both", ctx, param)
        kinds += _BOTH.get(kind, (kind,))
    return tuple(kinds)


_BACKGROUND = (
    "Background of composites: '#rrggbb', s3://bucket/picture.jpg or a local picture, which is uploaded. [#ffffff]"
)


def _options(default: OutputKind, background: str) -> list[Callable[[Callable[..., int]], Callable[..., int]]]:
    return [
        click.option(
            "--output",
            multiple=True,
            callback=_kinds,
            metavar="KIND,...",
            help="Outputs to write: mask, cutout, composite, separated by commas or as repeated options. "
            f"[{default.value}]",
        ),
        click.option("--format", "format_", type=click.Choice(_FORMATS), help="Format of all outputs. [png]"),
        click.option("--mask-format", type=click.Choice(_FORMATS), help="Format of masks, if different."),
        click.option(
            "--quality",
            type=click.IntRange(1, 100),
            help="Quality of JPEG, WebP and AVIF; 100 is lossless in WebP. [90]",
        ),
        click.option("--background", metavar="COLOUR|PICTURE", help=background),
        click.option("--crop", is_flag=True, help="Crop all outputs to the subject."),
        click.option(
            "--crop-margin", metavar="20px|5%", help="Margin around the subject: pixels, or % of its longer side. [0px]"
        ),
        click.option(
            "--threshold",
            type=console.FiniteRange(0, 1, min_open=True, max_open=True),
            help="Opacity from which a pixel belongs to the subject; removes soft edges.",
        ),
        click.option(
            "--refine", is_flag=True, help="Estimate the subject's own colours at soft edges to remove halos."
        ),
        click.option(
            "--max-side",
            type=click.IntRange(1, 65535),
            metavar="PIXELS",
            help="Scale down outputs whose longer side has more pixels.",
        ),
        click.option(
            "--exif",
            type=click.Choice([policy.value for policy in ExifPolicy]),
            help="What to do with EXIF data in cut-outs and composites; keep removes the GPS position. [strip]",
        ),
        click.option(
            "--name",
            metavar="TEMPLATE",
            help="Template for the keys of outputs, with {dir} {stem} {name} {kind} {ext}. "
            f"[{output_names.ONE_KIND}; several kinds: {output_names.SEVERAL_KINDS}]",
        ),
    ]


def output_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add these options to a command, which receives them as one argument, `outputs`."""
    return output_options_with(OutputKind.MASK)(command)


def output_options_with(
    default: OutputKind, *, background: str = _BACKGROUND
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return the decorator `output_options` for a command that differs in some of them.

    Args:
        default: what it writes if no kind of output is given.
        background: its help text of `--background`.
    """

    def add(command: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(command)
        def call(*, output: tuple[str, ...], format_: str | None, **rest: Any) -> int:
            names = set(OutputOptions.model_fields) & set(rest)
            values = {name: rest.pop(name) for name in names} | {"outputs": output or (default,), "format": format_}
            return command(outputs=_output_request(values), **rest)

        for option in reversed(_options(default, background)):
            call = option(call)
        return call

    return add


def _output_request(values: dict[str, Any]) -> OutputRequest:
    """Check the values of the options.

    Args:
        values: by field of `OutputOptions`; None, False and () mean that an option was not given.

    Raises:
        SettingsError: options contradict each other, have no effect, or have an invalid value.
    """
    given = {name: value for name, value in values.items() if value not in (None, False, ())}
    given |= {name: _ALIASES[given[name]] for name in ("format", "mask_format") if given.get(name) in _ALIASES}
    background_file = _background_file(given.get("background", ""))
    if background_file is not None:
        del given["background"]
    try:
        options = OutputOptions(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(map(_describe, error.errors()))) from error
    for name, (requirement, is_met) in _REQUIREMENTS.items():
        if values.get(name) and not is_met(options):
            raise SettingsError(f"{_flag(name)} has no effect without {requirement}")
    return OutputRequest(options, background_file)


def _background_file(background: str) -> Path | None:
    """Return the local file that the option names; None for a colour, an S3 URL or no value."""
    if not background or background.startswith(("#", "s3://")):
        return None
    file = Path(background).expanduser()
    if not (exists(file) and file.is_file()):
        raise SettingsError(
            f"--background {background}: no such file; give a colour such as '#f2f2f2', a file or s3://bucket/key"
        )
    return file


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _describe(error: Any) -> str:
    option = f"{_flag(str(error['loc'][0]))}: " if error["loc"] else ""
    return f"{option}{error['msg'].removeprefix('Value error, ')}"
