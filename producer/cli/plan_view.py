"""A plan as people and machines read it, and the question whether to go on."""

from __future__ import annotations

import sys

import click

from producer.cli import progress
from producer.estimate import Estimate, estimate_plan
from producer.plan import Plan, skips_in_words
from producer.sources.units import bytes_in_words
from worker.contract import console
from worker.contract.errors import ConfirmationNeeded
from worker.contract.ledger.jobs import Ledger


def as_dict(plan: Plan, cost: Estimate) -> dict[str, object]:
    """For one JSON line."""
    return {
        "images": plan.images,
        "bytes": plan.bytes,
        "images_of_unknown_size": plan.unknown_sizes,
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
    }


def show(plan: Plan, cost: Estimate) -> None:
    """As text."""

    def say(name: str, text: str) -> None:
        console.out.print(f"{name:<11}{text}", markup=False, soft_wrap=True)

    say("images", f"{plan.images:,}, {_size(plan)}")
    if plan.skipped:
        say("left out", skips_in_words(plan.skipped))
    count = "" if plan.up_to_date is None else f"{plan.up_to_date:,}, which workers will skip: "
    say("up to date", f"{count}{plan.up_to_date_basis}")
    if plan.folder:
        say("upload", f"{plan.folder} -> {plan.options.source}")
    for key, output in plan.outputs:
        say("output", f"{key} -> {plan.options.dest}{output}")
    for example in plan.collision_examples:
        say("collision", example)
    if plan.collisions > len(plan.collision_examples):
        say("", f"and {plan.collisions - len(plan.collision_examples):,} more")
    say("workers", _workers(cost))
    say("expected", _expected(cost))


def confirm(plan: Plan, ledger: Ledger, limit: int) -> bool:
    """Ask before a large job; True if it may go on.

    Raises:
        ConfirmationNeeded: there is nobody to ask.
    """
    if plan.images <= limit:
        return True
    if not (sys.stdin.isatty() and console.err.is_terminal):
        raise ConfirmationNeeded(
            f"{plan.images:,} images are more than --confirm-over {limit:,}, and there is no terminal to ask on: "
            "look at it with --dry-run, then add --yes"
        )
    expected = _expected(estimate_plan(plan, ledger))
    return click.confirm(f"Submit {plan.images:,} images ({_size(plan)}; expected: {expected})?", err=True)


def _size(plan: Plan) -> str:
    if plan.unknown_sizes == plan.images and plan.images:
        return "sizes unknown (--head asks for them)"
    unknown = f" and {plan.unknown_sizes:,} of unknown size" if plan.unknown_sizes else ""
    return bytes_in_words(plan.bytes) + unknown


def _workers(cost: Estimate) -> str:
    if not cost.processes:
        return "none is live: start some with `worker start`"
    return f"{cost.processes:,} live {'process' if cost.processes == 1 else 'processes'} on {cost.cores:,} cores"


def _expected(cost: Estimate) -> str:
    if cost.seconds is None or cost.images_per_second is None:
        return f"unknown: {cost.basis}"
    hours = f", {cost.core_hours:.2g} core-hours" if cost.core_hours else ""
    return f"{progress.duration(cost.seconds)}{hours} at {cost.images_per_second:.3g} images/s ({cost.basis})"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
