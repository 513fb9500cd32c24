"""`worker bench quality`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.bench_output import print_progress, publish
from worker.cli.model_source import SIZE, model_settings, object_store, print_warnings
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.errors import BundleNotFound
from worker.contract.settings import Settings
from worker.model.format.layout import PRECISIONS

if TYPE_CHECKING:
    from worker.bench.quality.exam import Exam
    from worker.bench.quality.rembg import RembgNetwork
    from worker.bench.quality.report import QualityReport
    from worker.model.format.variant import Bundle

EXAMS = ("rendered", "stamps", "composites")
"""Exams that `worker.training.exams` can build."""

EPILOG = """\b
Examples:
  worker bench quality --bundle builtin:starter --bundle builtin:contrast --exam rendered --output bench
  worker bench quality --bundle u2netp --precision fp32 --precision int8 --exam my-photographs --output bench
  worker bench quality --bundle u2netp --rembg u2netp=u2netp.onnx --exam rendered --count 30 --output bench
  worker bench quality --build-exam rendered exams/rendered

\b
A FOLDER for --exam holds images/ and masks/ with the same file names up to the suffix. True masks have the size of
their picture and hold 0 and 255, 0 and 1, or 16-bit grey. A NAME is an exam built from packages of pictures, which are
fetched at the first use: rendered (three-dimensional models in front of photographs), stamps and composites (the exams
of the model card of `starter`).
"""


@click.command("quality", epilog=EPILOG)
@click.option("--bundle", "sources", multiple=True, help="Folder, builtin:NAME, s3:// or hf:// address; repeatable.")
@click.option("--exam", metavar="NAME|FOLDER", help=f"Photographs with true masks: {', '.join(EXAMS)}, or a folder.")
@click.option(
    "--build-exam",
    nargs=2,
    type=(click.Choice(EXAMS), click.Path(file_okay=False, path_type=Path)),
    default=None,
    metavar="NAME FOLDER",
    help="Build an exam in a folder, and measure nothing.",
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["auto", *PRECISIONS]),
    multiple=True,
    default=("auto",),
    show_default=True,
    help="Precision of the bundles, repeatable; auto: the one that this CPU runs best.",
)
@SIZE
@click.option(
    "--arithmetic",
    type=click.Choice(["auto", "f32", "bf16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the float part; auto: as in a worker.",
)
@click.option("--count", type=click.IntRange(min=1), help="Only the first pictures; with --build-exam: how many.")
@click.option(
    "--sheet", "sheet_rows", type=click.IntRange(min=1), default=12, show_default=True, help="Pictures on the sheet."
)
@click.option(
    "--rembg",
    "rembg_networks",
    multiple=True,
    metavar="SESSION=FILE",
    help="Compare with rembg's network SESSION on the weights in an ONNX file; repeatable.",
)
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for the JSON file and the sheet."
)
def quality_command(
    *,
    sources: tuple[str, ...],
    exam: str | None,
    build_exam: tuple[str, Path] | None,
    count: int | None,
    output: Path | None,
    **options: Any,
) -> int:
    """Score the masks of bundles against true masks, and draw a sheet of them to look at.

    Measures S-measure, weighted F, E-measure, MAE, IoU and boundary IoU at the size of the pictures. With --rembg,
    rembg runs with the same weights in an environment that is made for it at the first use, and its masks are
    compared with those of every bundle.
    """
    config = settings.load()
    cache = config.model.cache_dir.expanduser() / "exams"
    if build_exam:
        from worker.training import exams

        name, folder = build_exam
        console.out.print(
            exams.build(name, folder, cache / "downloads", print_progress, count=count), markup=False, soft_wrap=True
        )
        return Exit.OK
    if not (sources and exam and output):
        raise click.UsageError("give --bundle, --exam and --output; or --build-exam")
    from worker.bench import report

    report.check_writable(output)
    publish(_measured(config, sources, exam, count, options), output)
    return Exit.OK


def _measured(
    config: Settings, sources: tuple[str, ...], exam: str, count: int | None, options: dict[str, Any]
) -> QualityReport:
    from worker.bench.quality import measure
    from worker.cpu import placement, topology
    from worker.model.loading import recommendation

    networks = _rembg_networks(options["rembg_networks"])
    advice = recommendation()
    bundles, notes = _bundles(config, sources, options, advice.precisions)
    asked = config.model.inference_precision if options["arithmetic"] == "auto" else options["arithmetic"]
    demand = measure.QualityOptions(
        exam=_exam(config, exam, count),
        bundles=bundles,
        arithmetic=advice.inference_precision if asked == "auto" else asked,
        cpus=tuple(placement.plan(topology.read(), config.plan).core_sets[0].cpus),
        limits=config.limits,
        cache=config.model.cache_dir.expanduser() / "environments",
        rembg=networks,
        sheet_rows=options["sheet_rows"],
        notes=tuple(notes),
    )
    with tempfile.TemporaryDirectory(prefix="maskmill-quality-") as scratch:
        return measure.run(demand, Path(scratch), print_progress)


def _rembg_networks(given: tuple[str, ...]) -> list[RembgNetwork]:
    from worker.bench.quality.rembg import RembgNetwork

    try:
        return [RembgNetwork.parse(text) for text in given]
    except ValueError as error:
        raise click.UsageError(f"--rembg: {error}") from error


def _bundles(
    config: Settings, sources: tuple[str, ...], options: dict[str, Any], recommended: tuple[str, ...]
) -> tuple[list[Bundle], list[str]]:
    """Return the variants to run, and a note on each precision that a bundle lacks.

    Raises:
        BundleNotFound: a bundle has none of the precisions; or see `bundles.locate`.
    """
    from worker.model.sources.bundles import locate

    found: list[Bundle] = []
    notes: list[str] = []
    for source in sources:
        missing: list[BundleNotFound] = []
        for precision in options["precisions"]:
            model = model_settings(config, source, precision=precision, size=options["size"])
            try:
                with object_store(config, source) as store:
                    found.append(locate(model, store, recommended))
            except BundleNotFound as error:
                missing.append(error)
        if len(missing) == len(options["precisions"]):
            raise missing[0]
        notes += [f"not measured: {error}" for error in missing]
    for bundle in found:
        print_warnings(bundle.warnings)
    return found, notes


def _exam(config: Settings, given: str, count: int | None) -> Exam:
    """Return the exam of that name or folder; build one of a known name if it was not built yet."""
    from worker.bench.quality import exam

    folder = Path(given).expanduser()
    if given not in EXAMS or folder.is_dir():
        return exam.load(folder, folder.resolve().name, count)
    from worker.training import exams

    cache = config.model.cache_dir.expanduser() / "exams"
    if not (cache / given).is_dir():
        exams.build(given, cache / given, cache / "downloads", print_progress)
    return exam.load(cache / given, given, count)
