"""`worker model verify`: check that a bundle is complete and that each variant gives the same masks as FP32."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from worker.cli.input_size import INPUT_SIZE
from worker.cli.model_source import (
    JSON,
    NAME,
    SOURCE,
    model_settings,
    object_store,
    print_warnings,
    progress_bar,
)
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.errors import BundleNotFound
from worker.contract.settings import Settings
from worker.convert.evaluate import pictures
from worker.convert.evaluate.verify import VariantCheck, VerifyOptions, check_files, check_variants
from worker.cpu import placement, topology
from worker.model.format.layout import PRECISIONS, Candidate
from worker.model.loading import recommendation
from worker.model.sources import bundles
from worker.model.sources.bundles import Survey

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("verify")
@SOURCE
@NAME
@click.option(
    "--size", "sizes", type=INPUT_SIZE, multiple=True, help="Only variants of this input size in pixels; repeatable."
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="Only variants of this precision; repeatable.",
)
@click.option("--images", type=_FOLDER, show_default="built-in pictures", help="Folder of pictures to run.")
@click.option(
    "--masks", type=_FOLDER, help="Folder of true masks of these pictures, with the same file names up to the suffix."
)
@click.option("--min-iou", type=console.FiniteRange(0, 1), help="Mean IoU with FP32 below which a variant fails.")
@click.option(
    "--arithmetic",
    type=click.Choice(["auto", "f32", "bf16"]),
    default="auto",
    show_default=True,
    help="Arithmetic of the float part; auto: as in a worker. The FP32 reference always runs in f32.",
)
@JSON
def verify_command(*, source: str | None, as_json: bool, masks: Path | None, **options: Any) -> int:
    """Check the files of SOURCE and compare the masks of its variants.

    Verifies digests, loads every variant and compares its masks with those of FP32. MAE, IoU of the subjects at 0.5 and
    the largest difference are measured on the output of the network, on the scale 0 to 1. With --masks, S-measure,
    weighted F, E-measure, MAE, IoU and boundary IoU are measured at the size of the picture, which its true mask must
    have too; true masks hold 0 and 255, 0 and 1, or 16 bits. Exits with 1 if a file does not match the manifest, a
    variant does not run, or its IoU with FP32 is below --min-iou.
    """
    if masks and not options["images"]:
        raise click.UsageError("--masks needs --images: the pictures that the masks belong to")
    config = settings.load()
    model = model_settings(config, source, name=options["name"])
    with tempfile.TemporaryDirectory(prefix="maskmill-verify-") as folder, object_store(config, model.source) as store:
        scratch = Path(folder)
        survey = bundles.survey(model, store)
        candidates = _candidates(survey, options)
        complaints = check_files(survey)
        demand, description = _demand(config, options, masks, scratch / "pictures")
        if not as_json:
            _print_head(survey, demand, description, masks)
        results = []
        with progress_bar() as on_progress:
            for checked in check_variants(
                model, candidates, demand, scratch=scratch, objects=store, progress=on_progress
            ):
                results.append(checked)
                if not as_json:
                    _print_one(checked)
    passed = not complaints and not any(checked.failure for checked in results)
    if as_json:
        console.print_json(
            {
                "source": survey.source,
                "passed": passed,
                "pictures": description,
                "files": complaints,
                "variants": [checked.as_dict() for checked in results],
                "warnings": list(survey.warnings),
            }
        )
    else:
        print_warnings([*survey.warnings, *complaints])
        console.out.print("[green]passed[/]" if passed else "[red]FAILED[/]")
    return Exit.OK if passed else Exit.SETUP


def _demand(config: Settings, options: dict[str, Any], masks: Path | None, scratch: Path) -> tuple[VerifyOptions, str]:
    """Return what to check, and a description of the pictures."""
    found, description = pictures.gather(options["images"], scratch)
    demand = VerifyOptions(
        pictures=tuple(found),
        true_masks=pictures.true_masks(found, masks) if masks else {},
        arithmetic=_arithmetic(options["arithmetic"], config),
        cpus=_cpus(config),
        limits=config.limits,
        min_iou=options["min_iou"],
    )
    return demand, description


def _candidates(survey: Survey, options: dict[str, Any]) -> Sequence[Candidate]:
    name, sizes, precisions = (options[key] for key in ("name", "sizes", "precisions"))
    selected = [
        candidate
        for candidate in survey.listing.candidates
        if name in (None, candidate.name)
        and (not sizes or candidate.size in sizes)
        and (not precisions or candidate.precision in precisions)
    ]
    if not selected:
        raise BundleNotFound(f"{survey.source} holds no such variant; it holds: {survey.listing.labels()}")
    return selected


def _arithmetic(given: str, config: Settings) -> Any:
    requested = config.model.inference_precision if given == "auto" else given
    return recommendation().inference_precision if requested == "auto" else requested


def _cpus(config: Settings) -> tuple[int, ...]:
    """Return one CPU of each core in the first core set that a worker would use."""
    return tuple(placement.plan(topology.read(), config.plan).core_sets[0].cpus)


def _print_head(survey: Survey, demand: VerifyOptions, description: str, masks: Path | None) -> None:
    lines = [survey.source, f"{description}; {len(demand.cpus)} cores; float part in {demand.arithmetic}"]
    if masks:
        lines.append(f"{len(demand.true_masks)} of {len(demand.pictures)} pictures have a true mask in {masks}")
    for line in lines:
        console.out.print(line, markup=False, soft_wrap=True)


def _print_one(checked: VariantCheck) -> None:
    mark = "[red]FAIL[/]" if checked.failure else "[green]ok  [/]"
    console.out.print(f"{mark} [bold]{checked.label}[/]")
    lines = [checked.failure] if checked.failure else []
    if checked.digest:
        lines.append(f"digest {checked.digest}")
    if checked.run:
        lines.append(_run_line(checked))
    if checked.agreement:
        got = checked.agreement
        lines.append(
            f"against {checked.reference}: MAE {got.mae:.5f}, IoU {got.iou:.4f} (minimum {checked.worst_iou:.4f}), "
            f"max {got.max_abs:.4f}"
        )
    elif checked.run and not checked.reference:
        lines.append("reference for the other variants")
    if checked.quality:
        true = checked.quality
        lines.append(
            f"against {true.pictures} true masks: S {true.s_measure:.4f}, weighted F {true.weighted_f:.4f}, "
            f"E {true.e_measure:.4f}, MAE {true.mae:.5f}, IoU {true.iou:.4f}, boundary IoU {true.boundary_iou:.4f}"
        )
    for line in (*lines, *(f"! {note}" for note in checked.notes)):
        console.out.print(f"       {line}", markup=False, soft_wrap=True)


def _run_line(checked: VariantCheck) -> str:
    if checked.run is None:
        raise AssertionError("called only for a variant that ran")
    facts, run = checked.run.facts, checked.run
    requested, compiled = facts["inference_precision_requested"], facts["inference_precision"]
    types = ", ".join(f"{kind} {count}" for kind, count in facts["execution_types"].items())
    return (
        f"requested {requested}, compiled {compiled}; {run.seconds:.3f} s per picture, "
        f"peak memory {run.peak_mib} MiB; {types}"
    )
