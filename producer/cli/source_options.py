"""Options of `producer submit` for the images to submit."""

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
    """Converts text with a parser of `producer.sources.units`."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:
        """Return the parsed value.

        Raises:
            BadParameter: the text cannot be parsed.
        """
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
    click.argument("sources", metavar="SOURCE...", nargs=-1, required=True),
    click.option(
        "--manifest",
        metavar="LIST",
        help="Submit only the keys in this list: a path, an s3:// URL or - for standard input. Formats: txt, csv, "
        "jsonl (plain or gzip) or the manifest.json of an S3 Inventory. Keys are relative to SOURCE, or s3:// URLs "
        "below it.",
    ),
    click.option(
        "--manifest-format",
        type=click.Choice([form.value for form in ListFormat]),
        help="Format of the list, if its name does not show it.",
    ),
    click.option(
        "--head", is_flag=True, help="Read size and age of the objects in a list from S3, with one request per object."
    ),
    click.option(
        "--follow-links",
        is_flag=True,
        help="Also submit what links in a local folder lead to outside it. Without it such links are counted and left "
        "out.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Submit only images that match one of these: *.jpg matches names, shoes/**/*.jpg matches whole keys.",
    ),
    click.option(
        "--exclude", multiple=True, metavar="GLOB", help="Leave out images that match; takes precedence over --include."
    ),
    click.option("--min-size", type=SIZE, help="Leave out smaller objects, for example 500k, 1M, 10MiB."),
    click.option("--max-size", type=SIZE, help="Leave out larger objects."),
    click.option(
        "--newer-than",
        type=TIME,
        help="Submit only images modified since, for example, 2026-01-31, 2026-01-31T12:00, 36h or 7d.",
    ),
    click.option(
        "--sample", type=SAMPLE, help="Submit a random sample of the images that pass the filters above: 500, or 1%."
    ),
    click.option(
        "--seed",
        type=int,
        default=0,
        show_default=True,
        help="Seed of the random sample; equal seeds draw equal samples.",
    ),
    click.option("--limit", type=click.IntRange(min=1), help="Stop listing after this number of images."),
    click.option("--any-suffix", is_flag=True, help="Also submit names without an image suffix; the content decides."),
)


def source_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add these options to a command, which receives them as one argument, `spec`."""

    @functools.wraps(command)
    def with_spec(
        *,
        sources: tuple[str, ...],
        manifest: str | None,
        manifest_format: str | None,
        head: bool,
        follow_links: bool,
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
            sources,
            manifest,
            ListFormat(manifest_format) if manifest_format else None,
            Filters(
                include=include,
                exclude=exclude,
                min_size=min_size,
                max_size=max_size,
                newer_than=newer_than,
                sample=sample,
                seed=seed,
                limit=limit,
                any_suffix=any_suffix,
            ),
            head,
            follow_links=follow_links,
        )
        return command(spec=spec, **others)

    for option in reversed(_OPTIONS):
        option(with_spec)
    return with_spec
