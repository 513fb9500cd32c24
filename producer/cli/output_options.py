"""Options that say what is written for an image: the same words for every command that submits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from producer.backgrounds import OutputRequest
from worker.contract import output_names
from worker.contract.errors import SettingsError
from worker.contract.outputs import ExifPolicy, ImageFormat, OutputKind, OutputOptions

_BOTH = {"both": (OutputKind.MASK.value, OutputKind.CUTOUT.value)}
_KINDS = [kind.value for kind in OutputKind]
_ALIASES = {"jpg": ImageFormat.JPEG.value}
_FORMATS = [*(form.value for form in ImageFormat), *_ALIASES]

# Option -> what it needs to have any effect, in words and as a test on the options.
_NEEDS: dict[str, tuple[str, Callable[[OutputOptions], bool]]] = {
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


def _kinds(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Kinds of output, repeated or separated by commas."""
    kinds: list[str] = []
    for word in ",".join(values).split(",") if values else ():
        kind = word.strip().lower()
        if kind not in _BOTH and kind not in _KINDS:
            raise click.BadParameter(f"{kind!r} is none of {', '.join(_KINDS)}, both", ctx, param)
        kinds += _BOTH.get(kind, (kind,))
    return tuple(kinds)


_OPTIONS = [
    click.option(
        "--output",
        multiple=True,
        callback=_kinds,
        metavar="KIND,...",
        help="What to write: mask, cutout, composite; several with commas or repeated. [mask]",
    ),
    click.option("--format", "format_", type=click.Choice(_FORMATS), help="Of all outputs. [png]"),
    click.option("--mask-format", type=click.Choice(_FORMATS), help="Of masks, if they are to differ."),
    click.option(
        "--quality", type=click.IntRange(1, 100), help="Of JPEG, WebP and AVIF; 100 is lossless in WebP. [90]"
    ),
    click.option(
        "--background",
        metavar="COLOUR|PICTURE",
        help="Of composites: '#rrggbb', s3://bucket/picture.jpg or a local picture, which is uploaded. [#ffffff]",
    ),
    click.option("--crop", is_flag=True, help="Crop all outputs to the subject."),
    click.option("--crop-margin", metavar="20px|5%", help="Around it: pixels, or % of its longer side. [0px]"),
    click.option(
        "--threshold",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Opacity from which a pixel is subject; leaves no soft edges.",
    ),
    click.option("--refine", is_flag=True, help="Estimate the subject's own colours at soft edges: no halo."),
    click.option("--max-side", type=click.IntRange(1, 65535), metavar="PIXELS", help="Scale larger outputs down."),
    click.option(
        "--exif",
        type=click.Choice([policy.value for policy in ExifPolicy]),
        help="Of the photograph, in cut-outs and composites; keep leaves out the GPS position. [strip]",
    ),
    click.option(
        "--name",
        metavar="TEMPLATE",
        help="Keys of outputs, from {dir} {stem} {name} {kind} {ext}. "
        f"[{output_names.ONE_KIND}; several kinds: {output_names.SEVERAL_KINDS}]",
    ),
]


def output_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command these options; it gets them as one argument, `outputs`."""

    @functools.wraps(command)
    def call(*, output: tuple[str, ...], format_: str | None, **rest: Any) -> int:
        names = set(OutputOptions.model_fields) & set(rest)
        asked = {name: rest.pop(name) for name in names} | {
            "outputs": output,
            "format": format_,
        }
        return command(outputs=request(asked), **rest)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call


def request(asked: dict[str, Any]) -> OutputRequest:
    """What was asked for, checked.

    Args:
        asked: by field of `OutputOptions`; empty values were not asked for.

    Raises:
        SettingsError: options that contradict each other, have no effect, or name something impossible.
    """
    given = {name: value for name, value in asked.items() if value not in (None, False, ())}
    given |= {name: _ALIASES[given[name]] for name in ("format", "mask_format") if given.get(name) in _ALIASES}
    background = given.get("background", "")
    file = Path(background).expanduser() if background and not background.startswith(("#", "s3://")) else None
    if file is not None:
        if not file.is_file():
            raise SettingsError(
                f"--background {background}: no such file; give a colour such as '#f2f2f2', a file or s3://bucket/key"
            )
        del given["background"]
    try:
        options = OutputOptions(**given)
    except ValidationError as error:
        raise SettingsError("\n".join(map(_in_words, error.errors()))) from error
    for name, (need, is_met) in _NEEDS.items():
        if asked.get(name) and not is_met(options):
            raise SettingsError(f"{_flag(name)} has no effect without {need}")
    return OutputRequest(options, file)


def _flag(field: str) -> str:
    return f"--{field.replace('_', '-')}"


def _in_words(error: Any) -> str:
    place = f"{_flag(str(error['loc'][0]))}: " if error["loc"] else ""
    return f"{place}{error['msg'].removeprefix('Value error, ')}"
