"""The options of `producer submit` that say what to submit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from producer.sources.filters import Filters
from producer.sources.list_formats import ListFormat
from producer.sources.resolve import SourceSpec
from producer.sources.units import SampleSize, parse_sample, parse_size, parse_time
from worker.contract.errors import SettingsError

T = TypeVar("T")


class Quantity(click.ParamType[T]):
    """What a parser of `producer.sources.units` makes of a text."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Parse, with the option named if that fails."""
        if not isinstance(value, str):
            parsed: T = value
            return parsed
        try:
            return self._parse(value)
        except SettingsError as error:
            self.fail(str(error), param, ctx)


SIZE: Quantity[int] = Quantity("size", parse_size)
TIME: Quantity[float] = Quantity("date|age", parse_time)
SAMPLE: Quantity[SampleSize] = Quantity("N|P%", parse_sample)

_OPTIONS = (
    click.argument("places", metavar="SOURCE...", nargs=-1, required=True),
    click.option(
        "--manifest",
        metavar="LIST",
        help="Take only the keys of this list: a path, an s3:// URL or - for standard input; txt, csv, jsonl (plain "
        "or gzip) or the manifest.json of an S3 Inventory. Keys are relative to SOURCE, or s3:// URLs below it.",
    ),
    click.option(
        "--manifest-format",
        type=click.Choice([form.value for form in ListFormat]),
        help="What the list is, where its name does not tell.",
    ),
    click.option(
        "--head", is_flag=True, help="Ask S3 about size and age of what a list names: one request for each object."
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Take only what matches one of these: *.jpg is about names, shoes/**/*.jpg about whole keys.",
    ),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out what matches; wins over --include."),
    click.option("--min-size", type=SIZE, help="Leave out smaller objects: 500k, 1M, 10MiB."),
    click.option("--max-size", type=SIZE, help="Leave out larger objects."),
    click.option(
        "--newer-than", type=TIME, help="Take only what was modified since: 2026-01-31, 2026-01-31T12:00, 36h, 7d."
    ),
    click.option("--sample", type=SAMPLE, help="A random part of what passed the filters: 500, or 1%."),
    click.option("--seed", type=int, default=0, show_default=True, help="Equal seeds draw equal samples."),
    click.option("--limit", type=click.IntRange(min=1), help="Stop listing after so many images."),
    click.option("--any-suffix", is_flag=True, help="Take names without an image suffix too; the content decides."),
)


def source_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options to a command, which gets them as `spec`."""

    @functools.wraps(command)
    def with_spec(
        *,
        places: tuple[str, ...],
        manifest: str | None,
        manifest_format: str | None,
        head: bool,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        min_size: int | None,
        max_size: int | None,
        newer_than: float | None,
        sample: SampleSize | None,
        seed: int,
        limit: int | None,
        any_suffix: bool,
        **others: Any,
    ) -> int:
        spec = SourceSpec(
            places,
            manifest,
            ListFormat(manifest_format) if manifest_format else None,
            Filters(include, exclude, min_size, max_size, newer_than, sample, seed, limit, any_suffix),
            head,
        )
        return command(spec=spec, **others)

    for option in reversed(_OPTIONS):
        option(with_spec)
    return with_spec
