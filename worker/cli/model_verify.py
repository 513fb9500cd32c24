"""`worker model verify`: is a bundle whole, and does each variant give the masks that FP32 gives?"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from worker.cli.model_source import JSON, NAME, SOURCE, advice, asked, bar, objects, warn
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.errors import BundleNotFound
from worker.contract.settings import Settings
from worker.convert.evaluate import pictures
from worker.convert.evaluate.verify import VariantCheck, VerifyOptions, check_files, check_variants
from worker.cpu import placement, topology
from worker.model.format.layout import PRECISIONS, Candidate
from worker.model.sources import bundles
from worker.model.sources.bundles import Survey

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("verify")
@SOURCE
@NAME
@click.option("--size", "sizes", type=int, multiple=True, help="Only variants of this side; may be given repeatedly.")
@click.option("--precision", "precisions", type=click.Choice(PRECISIONS), multiple=True, help="Only these variants.")
@click.option("--images", type=_FOLDER, help="Pictures to run; default: built-in ones.")
@click.option("--masks", type=_FOLDER, help="True masks of these pictures, with the same names before the ending.")
@click.option("--min-iou", type=click.FloatRange(0, 1), help="Mean IoU with FP32 below which a variant fails.")
@click.option(
    "--arithmetic",
    type=click.Choice(["auto", "f32", "bf16"]),
    default="auto",
    show_default=True,
    help="Of the float part; auto: what a worker would use. FP32 is compared with in f32.",
)
@JSON
def verify_command(*, source: str | None, as_json: bool, masks: Path | None, **asked_for: Any) -> int:
    """Check digests, load every variant of SOURCE and compare its masks with those of FP32.

    MAE, IoU of the subjects at 0.5 and the largest difference are measured on the network's own output, on the scale 0
    to 1. With true masks: S-measure, weighted F, E-measure, MAE and IoU at the size of each true mask. Exit 1 when a
    file is not as described, a variant does not run, or its IoU with FP32 is below --min-iou.
    """
    if masks and not asked_for["images"]:
        raise click.UsageError("--masks needs --images: the pictures that the masks belong to")
    config = settings.load()
    model = asked(config, source, name=asked_for["name"])
    with tempfile.TemporaryDirectory(prefix="maskmill-verify-") as folder, objects(config, model.source) as port:
        scratch = Path(folder)
        survey = bundles.survey(model, port)
        candidates = _candidates(survey, asked_for)
        complaints = check_files(survey)
        demand, what = _demand(config, asked_for, masks, scratch / "pictures")
        if not as_json:
            _print_head(survey, demand, what, masks)
        results = []
        with bar() as report:
            for checked in check_variants(model, candidates, demand, scratch=scratch, objects=port, progress=report):
                results.append(checked)
                if not as_json:
                    _print_one(checked)
    passed = not complaints and not any(checked.failure for checked in results)
    if as_json:
        console.print_json(
            {
                "source": survey.source,
                "passed": passed,
                "pictures": what,
                "files": complaints,
                "variants": [checked.as_dict() for checked in results],
                "warnings": list(survey.warnings),
            }
        )
    else:
        warn([*survey.warnings, *complaints])
        console.out.print("[green]passed[/]" if passed else "[red]FAILED[/]")
    return Exit.OK if passed else Exit.SETUP


def _demand(
    config: Settings, asked_for: dict[str, Any], masks: Path | None, scratch: Path
) -> tuple[VerifyOptions, str]:
    """What to check, and what the pictures are in words."""
    found, what = pictures.gather(asked_for["images"], scratch)
    demand = VerifyOptions(
        pictures=tuple(found),
        true_masks=pictures.true_masks(found, masks) if masks else {},
        arithmetic=_arithmetic(asked_for["arithmetic"], config),
        cpus=_cpus(config),
        limits=config.limits,
        min_iou=asked_for["min_iou"],
    )
    return demand, what


def _candidates(survey: Survey, asked_for: dict[str, Any]) -> Sequence[Candidate]:
    name, sizes, precisions = (asked_for[key] for key in ("name", "sizes", "precisions"))
    left = [
        candidate
        for candidate in survey.listing.candidates
        if name in (None, candidate.name)
        and (not sizes or candidate.size in sizes)
        and (not precisions or candidate.precision in precisions)
    ]
    if not left:
        raise BundleNotFound(f"{survey.source} holds no such variant; there is: {survey.listing.labels()}")
    return left


def _arithmetic(given: str, config: Settings) -> Any:
    wanted = config.model.inference_precision if given == "auto" else given
    return advice().inference_precision if wanted == "auto" else wanted


def _cpus(config: Settings) -> tuple[int, ...]:
    """One CPU of each core of the first core set that a worker would get."""
    return tuple(placement.plan(topology.read(), config.plan).core_sets[0].cpus)


def _print_head(survey: Survey, demand: VerifyOptions, what: str, masks: Path | None) -> None:
    lines = [survey.source, f"{what}; {len(demand.cpus)} cores; float part in {demand.arithmetic}"]
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
            f"against {checked.reference}: MAE {got.mae:.5f}, IoU {got.iou:.4f} (least {checked.worst_iou:.4f}), "
            f"max {got.max_abs:.4f}"
        )
    elif checked.run and not checked.reference:
        lines.append("is what the others are compared with")
    if checked.quality:
        true = checked.quality
        lines.append(
            f"against the truth of {true.pictures}: S {true.s_measure:.4f}, weighted F {true.weighted_f:.4f}, "
            f"E {true.e_measure:.4f}, MAE {true.mae:.5f}, IoU {true.iou:.4f}"
        )
    for line in (*lines, *(f"! {note}" for note in checked.notes)):
        console.out.print(f"       {line}", markup=False, soft_wrap=True)


def _run_line(checked: VariantCheck) -> str:
    if checked.run is None:
        raise AssertionError("only called for a variant that ran")
    facts, run = checked.run.facts, checked.run
    asked, got = facts["inference_precision_requested"], facts["inference_precision"]
    types = ", ".join(f"{kind} {count}" for kind, count in facts["execution_types"].items())
    return f"asked for {asked}, compiled {got}; {run.seconds:.3f} s a picture, peak {run.peak_mib} MiB; {types}"
