"""`worker tune`."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import click
from rich.table import Table

from worker.bench.tune.layouts import Layout, candidates
from worker.bench.tune.sweep import Trial, TrialResult, sweep
from worker.cli.bench_output import print_progress
from worker.cli.network import resolved
from worker.contract import console, settings
from worker.contract.console import Exit
from worker.contract.errors import BundleNotFound, PlacementError
from worker.contract.settings import Settings
from worker.contract.storage.s3 import ObjectStore
from worker.cpu import topology
from worker.cpu.load import busy_cpus
from worker.cpu.pinning import refuse_forbidden_variables
from worker.model.format.variant import Variant
from worker.model.loading import find_bundle, recommendation
from worker.node import tuned_plan
from worker.node.tuned_plan import TunedLayout

_LOAD_SECONDS = 2.0
"""Time for which the CPUs are watched before the first trial."""

_MOST_LOAD = 0.1
"""Share of the CPUs that other programs may use."""

EPILOG = """\b
Examples:
  worker tune                            streams x threads x processes with the network of the settings
  worker tune --precision int8 --precision fp32     the same with each of these variants
  worker tune --seconds 30 --rounds 3    longer, for a noisy machine
"""


@click.command("tune", epilog=EPILOG)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["fp32", "fp16", "int8wo", "int8"]),
    multiple=True,
    help="Variants to try, repeatable; by default the one that the settings or the CPU choose.",
)
@click.option(
    "--seconds", type=console.FiniteRange(min=1), default=10.0, show_default=True, help="Duration of a trial."
)
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True, help="Rounds of trials.")
@click.option("--dry-run", is_flag=True, help="Only list the trials.")
@click.option(
    "--accept-load", is_flag=True, help="Measure and save even if other programs use the CPUs: the result may be wrong."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def tune_command(
    *, precisions: tuple[str, ...], seconds: float, rounds: int, dry_run: bool, accept_load: bool, as_json: bool
) -> int:
    """Measure layouts on all cores of this machine at once, and save the fastest for `worker start`.

    Trials take seconds, so a program that runs beside one of them decides which layout looks fastest. The command
    refuses to start while other programs use more than a tenth of the CPUs.
    """
    config, _ = resolved(settings.load())
    refuse_forbidden_variables(os.environ)
    machine = topology.read()
    layouts = candidates(machine, tuned_plan.with_memory(machine, config.plan, config.model))
    trials = [Trial(layout, variant, kind) for variant, kind in _networks(config, precisions) for layout in layouts]
    if dry_run:
        for trial in trials:
            console.out.print(trial.label, highlight=False)
        return Exit.OK
    if not accept_load:
        _refuse_load()
    results = sweep(trials, seconds=seconds, rounds=rounds, on_progress=print_progress)
    best, default = results[0], next(result for result in results if result.trial is trials[0])
    facts = tuned_plan.fingerprint(machine, config.model)
    tuned = _tuned(best, default)
    path = tuned_plan.save(config.model.cache_dir, facts, tuned)
    if as_json:
        console.print_json(
            {"machine": facts, "best": best.trial.label, "saved": str(path), "trials": [_row(r) for r in results]}
        )
        return Exit.OK
    _show(results, default)
    console.out.print(f"saved for `worker start`: {path}", markup=False, soft_wrap=True)
    return Exit.OK


def _refuse_load() -> None:
    """Refuse to measure while other programs use the CPUs.

    Raises:
        PlacementError: they are busy; the message says how busy.
    """
    cpus = os.sched_getaffinity(0)
    busy = busy_cpus(cpus, _LOAD_SECONDS)
    if busy > _MOST_LOAD * len(cpus):
        raise PlacementError(
            f"other programs use {busy:.1f} of {len(cpus)} CPUs, so no layout measured now would be the fastest later: "
            "stop them (workers of this node too) and try again, or add --accept-load"
        )


def _networks(config: Settings, precisions: tuple[str, ...]) -> list[tuple[Variant, str]]:
    """Return the variants to try, each with the arithmetic of its float part."""
    advice = recommendation()
    asked = config.model.inference_precision
    kind = advice.inference_precision if asked == "auto" else asked
    found: list[tuple[Variant, str]] = []
    with ObjectStore(config.s3) as store:
        for precision in precisions or (config.model.precision,):
            model = config.model.model_copy(update={"precision": precision})
            try:
                found.append((find_bundle(config.model_copy(update={"model": model}), store, advice).variant, kind))
            except BundleNotFound as error:
                if len(precisions) < 2:  # noqa: PLR2004 -- the only one asked for
                    raise
                console.err.print(f"left out: {error}", markup=False, soft_wrap=True)
    return found


def _tuned(best: TrialResult, default: TrialResult) -> TunedLayout:
    layout: Layout = best.trial.layout
    return TunedLayout(
        processes=layout.processes,
        streams=layout.streams,
        threads=layout.plan.core_sets[0].threads,
        precision=best.trial.variant.precision,
        inference_precision=best.trial.arithmetic,
        images_per_second=round(best.rate, 4),
        over_default=round(best.rate / default.rate, 4) if default.rate else 1.0,
        measured_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _row(result: TrialResult) -> dict[str, object]:
    return {
        "layout": result.trial.label,
        "images_per_second": round(result.rate, 4),
        "rates": [round(rate, 4) for rate in result.rates],
        "load_seconds": round(result.load_seconds, 2),
        "peak_memory_mib": result.peak_memory_mib,
        "failed": result.failed,
    }


def _show(results: list[TrialResult], default: TrialResult) -> None:
    table = Table("layout", "images/s", "x default", "rounds", "load s", "peak MiB", box=None, header_style="bold")
    for result in results:
        table.add_row(
            result.trial.label + (" (default)" if result is default else ""),
            f"{result.rate:.2f}" if result.rates else "-",
            f"{result.rate / default.rate:.2f}" if result.rates and default.rate else "-",
            str(len(result.rates)) if result.rates else result.failed,
            f"{result.load_seconds:.1f}",
            str(result.peak_memory_mib),
        )
    console.out.print(table)
