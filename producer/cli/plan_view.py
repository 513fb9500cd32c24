"""Show a plan as text or JSON, and ask for confirmation."""

from __future__ import annotations

import sys

import click
from rich import filesize

from producer.cli import progress
from producer.estimate import Estimate, estimate_plan
from producer.plan import Plan, skips_in_words
from producer.wording import cost_fields, cost_in_words
from worker.contract import console
from worker.contract.errors import ConfirmationNeeded
from worker.contract.ledger.jobs import Ledger
from worker.contract.settings import JobSettings


def as_dict(plan: Plan, cost: Estimate, jobs: JobSettings, waits_for: str = "") -> dict[str, object]:
    """Return the fields of one JSON line."""
    return {
        "images": plan.images,
        "bytes": plan.bytes,
        "images_of_unknown_size": plan.unknown_sizes,
        "unreadable": plan.unreadable,
        "skipped": {reason.value: count for reason, count in plan.skipped.items()},
        "up_to_date": plan.up_to_date,
        "up_to_date_by": plan.up_to_date_basis,
        "source": str(plan.options.source),
        "upload_from": str(plan.folder) if plan.folder else None,
        "dest": str(plan.options.dest),
        "outputs": [{"key": key, "output": output} for key, output in plan.outputs],
        "collisions": plan.collisions,
        "collision_examples": list(plan.collision_examples),
        "live_processes": cost.processes,
        "live_cores": cost.cores,
        "images_per_second": _rounded(cost.images_per_second),
        "expected_seconds": _rounded(cost.seconds),
        "expected_core_hours": _rounded(cost.core_hours),
        "measured_by": cost.basis,
        "waits_for": waits_for,
    } | cost_fields(cost.core_hours, jobs)


def show(plan: Plan, cost: Estimate, jobs: JobSettings, waits_for: str = "") -> None:
    """Print a plan, its cost, and the job that it would wait for, as text."""

    def line(name: str, text: str) -> None:
        console.out.print(f"{name:<11}{text}", markup=False, soft_wrap=True)

    line("images", f"{plan.images:,}, {_size(plan)}")
    if plan.unreadable:
        line("unreadable", f"{plan.unreadable:,} HEIC, which will fail: convert them, or --exclude '*.{{heic,heif}}'")
    if plan.skipped:
        line("left out", skips_in_words(plan.skipped))
    count = "" if plan.up_to_date is None else f"{plan.up_to_date:,}, which workers will skip: "
    line("up to date", f"{count}{plan.up_to_date_basis}")
    if plan.folder:
        line("upload", f"{plan.folder} -> {plan.options.source}")
    for key, output in plan.outputs:
        line("output", f"{key} -> {plan.options.dest}{output}")
    for example in plan.collision_examples:
        line("collision", example)
    if plan.collisions > len(plan.collision_examples):
        line("", f"and {plan.collisions - len(plan.collision_examples):,} more")
    line("workers", _workers(cost))
    line("expected", _expected(cost, jobs))
    if waits_for:
        line("waits for", waits_for)


def confirm(plan: Plan, ledger: Ledger, limit: int, jobs: JobSettings) -> bool:
    """Ask before submitting more than `limit` images; return whether to submit.

    Raises:
        ConfirmationNeeded: there is no terminal to ask on.
    """
    if plan.images <= limit:
        return True
    if not (sys.stdin.isatty() and console.err.is_terminal):
        raise ConfirmationNeeded(
            f"{plan.images:,} images are more than --confirm-over {limit:,}, and there is no terminal to ask on: "
            "check the job with --dry-run, then add --yes"
        )
    expected = _expected(estimate_plan(plan, ledger), jobs)
    return click.confirm(f"Submit {plan.images:,} images ({_size(plan)}; expected: {expected})?", err=True)


def _size(plan: Plan) -> str:
    if plan.unknown_sizes == plan.images and plan.images:
        return "sizes unknown (use --head to read them)"
    unknown = f" and {plan.unknown_sizes:,} of unknown size" if plan.unknown_sizes else ""
    return filesize.decimal(plan.bytes) + unknown


def _workers(cost: Estimate) -> str:
    if not cost.processes:
        return "no live worker: start workers with `worker start`"
    return f"{cost.processes:,} live {'process' if cost.processes == 1 else 'processes'} on {cost.cores:,} cores"


def _expected(cost: Estimate, jobs: JobSettings) -> str:
    if cost.seconds is None or cost.images_per_second is None:
        return f"unknown: {cost.basis}"
    hours = f", {cost_in_words(cost.core_hours, jobs)}" if cost.core_hours else ""
    return f"{progress.duration(cost.seconds)}{hours} at {cost.images_per_second:.3g} images/s ({cost.basis})"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
